"""What can go wrong in streams, split by what the caller does about it."""

from __future__ import annotations

from django.db import InterfaceError, InternalError, OperationalError

DATABASE_AWAY = (OperationalError, InterfaceError, InternalError)
"""The connection is gone, or the server can't work: try again later, on a new one. PostgreSQL files
its end of a session that was idle within a transaction (SQLSTATE 25P03) under internal errors."""


class StreamsError(Exception):
    """The family's head; its message is for people."""


class DeliveryError(StreamsError):
    """Retry: the broker did not take some messages."""

    def __init__(self, failed: int, waiting: int, reason: str) -> None:
        self.failed, self.waiting, self.reason = failed, waiting, reason
        super().__init__(
            f"{failed + waiting} messages were not delivered ({failed} refused, {waiting} without "
            f"an answer): {reason}"
        )


class BrokerError(StreamsError):
    """Retry or give up: no broker answers at the configured address."""


class SourceError(StreamsError):
    """Give up: a file or an option can't be read as events; says what and where."""


class UnusableError(StreamsError):
    """Give up: new settings or a new model can't be used; what counted before goes on."""
