"""What goes wrong when an alert is taken in: the caller's mistakes, told field by field."""

from __future__ import annotations


class IntakeError(Exception):
    """A field that can't be read: reject, and say what is allowed."""

    def __init__(self, field: str, message: str, allowed: str) -> None:
        super().__init__(message)
        self.field, self.message, self.allowed = field, message, allowed
