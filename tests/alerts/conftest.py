"""Clients of people by their role."""

from __future__ import annotations

from tests.people import operator, viewer

__all__ = ["operator", "viewer"]
