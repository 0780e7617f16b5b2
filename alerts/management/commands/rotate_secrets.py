"""`manage.py rotate_secrets`: receivers' secrets under the present SECRET_KEY."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from alerts import vault


class Command(BaseCommand):
    help = "Encrypt receivers' secrets anew by SECRET_KEY; SECRET_KEY_FALLBACKS opens the old ones."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = vault.rotate()
        except vault.SecretError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{done} receivers' secrets are encrypted by the present key")
