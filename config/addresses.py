"""PostgreSQL's address as Django's settings want it, and addresses fit to be shown."""

from __future__ import annotations

import re
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
_DJANGO_KEYS = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}


class BadAddressError(ValueError):
    """An address that can't be read; the message never holds its password."""


def django_database(url: str) -> dict[str, Any]:
    """`DATABASES["default"]` from libpq's URI, a socket's (`?host=/folder`) included.

    >>> django_database("postgresql://postgres:@/postgres?host=/run/pg")["HOST"]
    '/run/pg'
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise BadAddressError("no postgresql:// address")
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:
        # libpq's message repeats the address, so it is not passed on.
        raise BadAddressError("an address that PostgreSQL's client can't read") from None
    database: dict[str, Any] = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {}}
    for key, value in parts.items():
        if key in _DJANGO_KEYS:
            database[_DJANGO_KEYS[key]] = str(value)
        else:
            database["OPTIONS"][key] = value
    database.setdefault("NAME", "postgres")
    return database


def without_password(text: str) -> str:
    """The text with `***` for each password inside an address.

    >>> without_password("redis://:hunter2@127.0.0.1:6379")
    'redis://:***@127.0.0.1:6379'
    """
    return _PASSWORD.sub(r"\1:***@", text)
