"""What goes wrong in alerts, by what the caller does about it."""

from __future__ import annotations


class IntakeError(Exception):
    """A field that can't be read: reject, and say what is allowed."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(message)
        self.field, self.message, self.allowed = field, message, allowed


class FencedError(Exception):
    """Give up: somebody else does this by now; what was begun is undone."""


class ActionError(Exception):
    """An action that an incident's state does not allow: tell the caller."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(message)
        self.field, self.message, self.allowed = field, message, allowed
