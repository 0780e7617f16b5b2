"""Clients of people by their role."""

from __future__ import annotations

import pytest
from django.test import Client

from tests import builders


@pytest.fixture
def viewer(db: None) -> Client:
    """Somebody who only reads."""
    client = Client()
    client.force_login(builders.user("vera"))
    return client


@pytest.fixture
def operator(db: None) -> Client:
    """Somebody who acts."""
    client = Client()
    client.force_login(builders.user("olga", is_staff=True))
    return client
