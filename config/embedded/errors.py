"""What can go wrong with the embedded servers, in words that say what to do."""

from __future__ import annotations

OWN_SERVERS = (
    "Servers of your own serve as well: KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and REDIS_URL "
    "name them."
)


class EmbeddedError(Exception):
    """An embedded server can't be had or doesn't start; the message is for people."""


def not_ready(name: str, log: str, tail: str) -> EmbeddedError:
    return EmbeddedError(f"{name} did not start. The end of {log}:\n{tail}\n{OWN_SERVERS}")
