"""Vigil's version, as pages, processes and diagnostics tell it; a test keeps pyproject's alike."""

from __future__ import annotations

VERSION = "0.1.0"
