#!/usr/bin/env python
"""Vigil's command line: Django's commands, with mistakes in the configuration told plainly."""

from __future__ import annotations

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        raise SystemExit(
            "Django is not installed in this Python. Run `make venv`, then use .venv/bin/python."
        ) from None

    from config.loading import refuse_if_invalid

    # `check` lists the same mistakes as Django system checks, so it is let through.
    if sys.argv[1:2] not in (["check"], ["help"], ["--help"], []):
        refuse_if_invalid()
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
