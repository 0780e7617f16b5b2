"""Receivers' secrets: encrypted at rest, read only to send, and struck out of whatever is kept.

The key is derived from SECRET_KEY (HKDF, RFC 5869); keys of SECRET_KEY_FALLBACKS still open what
they closed, and :func:`rotate` closes it anew. A value ``env:NAME`` or ``file:/path`` is a
reference, looked up when something is sent; only names that begin with ``VIGIL_SECRET_`` and files
below ``alerts.secrets_dir`` are, so that nobody sends the server's own secrets away.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from alerts.models import Receiver

PURPOSE = b"vigil alerts: secrets of receivers, v1"
ENVIRONMENT = "VIGIL_SECRET_"
LONGEST_FILE = 20_000
STRUCK = "•••"
SHORTEST_STRUCK = 4  # what is shorter is no secret, and would strike out half of every text


class SecretError(Exception):
    """A secret that can't be read; the message is for people and does not hold it."""


def seal(values: Mapping[str, str]) -> str:
    """Encrypted text of names and secrets; empty for none."""
    if not values:
        return ""
    return _box().encrypt(json.dumps(dict(values), sort_keys=True).encode()).decode()


def unseal(sealed: str) -> dict[str, str]:
    """What :func:`seal` was given, references as they are. Raises :class:`SecretError`."""
    if not sealed:
        return {}
    try:
        found: dict[str, str] = json.loads(_box().decrypt(sealed.encode()))
    except (InvalidToken, ValueError):
        raise SecretError(
            "The secrets can't be opened: SECRET_KEY is another one now. Put the old one into"
            " SECRET_KEY_FALLBACKS, or enter the secrets again."
        ) from None
    return found


def revealed(sealed: str) -> dict[str, str]:
    """As :func:`unseal`, with references looked up. Raises :class:`SecretError`."""
    return {name: looked_up(value) for name, value in unseal(sealed).items()}


def looked_up(value: str) -> str:
    """The value itself, or what its reference leads to. Raises :class:`SecretError`."""
    if value.startswith("env:"):
        return _from_environment(value[4:])
    if value.startswith("file:"):
        return _from_file(value[5:])
    return value


def is_reference(value: str) -> bool:
    """Whether a value only says where the secret stands."""
    return value.startswith(("env:", "file:"))


def reference_problem(value: str) -> str:
    """What is wrong with a reference, in words; empty where nothing is, or it is none."""
    try:
        looked_up(value)
    except SecretError as error:
        return str(error)
    return ""


def struck(text: str, secrets: Iterable[str]) -> str:
    """Text without any of the secrets, in plain, quoted or base64 form."""
    forms: set[str] = set()
    for secret in secrets:
        parts = [secret, *(p for p in secret.split("/") if len(p) >= 16)]
        for part in parts:
            encoded = base64.b64encode(part.encode()).decode().rstrip("=")
            forms |= {part, quote(part, safe=""), quote(part), encoded, json.dumps(part)[1:-1]}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= SHORTEST_STRUCK:
            text = text.replace(form, STRUCK)
    return text


def rotate() -> int:
    """Encrypt all receivers' secrets by the present SECRET_KEY; returns how many."""
    done = 0
    for receiver in Receiver.objects.exclude(secrets="").only("secrets"):
        Receiver.objects.filter(pk=receiver.pk, secrets=receiver.secrets).update(
            secrets=seal(unseal(receiver.secrets))
        )
        done += 1
    return done


def _box() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet([Fernet(_derived(str(key))) for key in keys])


def _derived(key: str) -> bytes:
    raw = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(key.encode())
    return base64.urlsafe_b64encode(raw)


def _from_environment(name: str) -> str:
    if not name.startswith(ENVIRONMENT):
        raise SecretError(f"Only variables that begin with {ENVIRONMENT} can be named, as"
                          f" env:{ENVIRONMENT}PAGER.")  # fmt: skip
    value = settings.VIGIL_SECRETS.get(name, "").strip()
    if not value:
        raise SecretError(f"The environment variable {name} is not set where this runs.")
    return value


def _from_file(path: str) -> str:
    root = Path(settings.VIGIL.alerts.secrets_dir).resolve()
    try:
        real = Path(path).resolve(strict=True)
        if not real.is_relative_to(root):
            raise SecretError(f"Only files below {root} can be named (alerts.secrets_dir).")
        value = real.read_bytes()[:LONGEST_FILE].decode().strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SecretError(f"The file {path!r} can't be read: {why}.") from None
    if not value:
        raise SecretError(f"The file {path!r} is empty.")
    return value
