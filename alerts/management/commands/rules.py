"""`manage.py rules export|diff|apply`: alert rules and what they need, as a file to keep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from alerts import exchange, yaml_text
from alerts.problems import WrongError
from alerts.rules import RuleError
from streams import audit
from streams.audited_command import AuditedCommand


class Command(AuditedCommand):
    """For rules that live in a repository; a second apply changes nothing."""

    help = "Write rules, silences, hours and teams as YAML, or make what a file says so."
    requires_system_checks: tuple[str, ...] = ()  # they import every page: a slower start

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        actions.add_parser("export", help="print what stands now")
        for name, what in (("diff", "say what applying a file would change"),
                           ("apply", "make it so, all or nothing")):  # fmt: skip
            one = actions.add_parser(name, help=what)
            one.add_argument("file", metavar="FILE", help="a YAML file, or - for standard input")

    def handle(self, *args: Any, **given: Any) -> None:
        if given["action"] == "export":
            self.stdout.write(exchange.exported(), ending="")
            return
        try:
            document = exchange.read(_text(given["file"]), given["file"])
            if given["action"] == "diff":
                changes = exchange.difference(document)
            else:
                changes = exchange.apply(document, audit.person_here())
        except WrongError as error:
            raise CommandError(f"Nothing was changed.\n{error}") from None
        except RuleError as error:
            raise CommandError(f"Nothing was changed. {given['file']}: {error}") from None
        for change in changes:
            self.stdout.write(str(change))
            if given["action"] == "diff":
                for sign, line in change.lines:
                    self.stdout.write(f"  {sign} {line}")
        if not changes:
            self.stdout.write("Nothing to change: all of it stands already.")


def _text(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.read()
        path = Path(name)
        if path.stat().st_size > 4 * yaml_text.LONGEST:
            raise CommandError(f"{name}: larger than any file of rules may be")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror or 'unreadable'}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{name}: no UTF-8 text") from None
