"""`manage.py bootstrap`: what must be there before the first start; harmless when repeated."""

from __future__ import annotations

import os
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser
from django.db import OperationalError

from alerts import first_rule
from config.addresses import without_password
from config.loading import ConfigError, secret_value
from config.topics import TopicsError, ensure_topics
from detection.models import ThresholdPolicy
from streams import audit
from streams.audit import Action
from streams.audited_command import AuditedCommand


class Command(AuditedCommand):
    help = "Migrate the database, make the topics and the first admin; harmless when repeated."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-admin", action="store_true", help="make no first admin")
        parser.add_argument(
            "--demo",
            action="store_true",
            help="with the first admin, a policy that holds back nothing of the demo source",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            call_command("migrate", interactive=False, verbosity=0)
        except OperationalError as error:
            raise CommandError(
                f"PostgreSQL can't be used: {without_password(str(error)).strip()}\n"
                "Start the embedded one with `make run`, or name yours in DATABASE_URL."
            ) from None
        self.stdout.write("database: up to date")
        try:
            for line in ensure_topics(settings.VIGIL):
                self.stdout.write(f"topic {line}")
        except TopicsError as error:
            raise CommandError(str(error)) from None
        if first_rule.ensure():
            self.stdout.write(f"alert rule: {first_rule.NAME}")
        if not options["no_admin"]:
            if options["demo"] and not self._admins().exists():
                self._tell_all()
            self.stdout.write(f"login: {self._first_admin()}")

    @staticmethod
    def _admins() -> Any:
        return get_user_model().objects.filter(is_superuser=True, is_active=True)

    @staticmethod
    def _tell_all() -> None:
        """The demo has a fault a minute, and its visitors wait for one: no budget of one a day."""
        policy, made = ThresholdPolicy.objects.get_or_create(
            name="demo: tell every fault", defaults={"max_onsets_per_day": 0.0, "priority": -100}
        )
        if made:
            after = audit.facts(policy, ThresholdPolicy.FOLLOWS)
            audit.record(audit.person_here(), Action.CREATED, policy, None, after)

    def _first_admin(self) -> str:
        """Makes `admin` where there is no administrator yet, and says how to log in."""
        if self._admins().exists():
            return "as before (`manage.py changepassword admin` sets a new password)"
        try:
            given = secret_value(os.environ, "VIGIL_ADMIN_PASSWORD")
        except ConfigError as error:
            raise CommandError(str(error)) from None
        password = given or secrets.token_urlsafe(12)
        get_user_model().objects.create_superuser("admin", password=password)
        if given:
            return "admin, with the password from VIGIL_ADMIN_PASSWORD"
        return f"admin / {password}   (shown this once)"
