"""What templates of alerts need."""

from __future__ import annotations
