"""A signed-in client, and fresh answers of what is kept for some seconds."""

from __future__ import annotations

import pytest
from django.test import Client

from anomalies import health
from tests import builders
from tests.people import operator

__all__ = ["fresh", "operator", "web"]


@pytest.fixture
def web(db: None) -> Client:
    """A client of somebody who is signed in, and may look."""
    client = Client()
    client.force_login(builders.user())
    return client


@pytest.fixture(autouse=True)
def fresh() -> None:
    health.forget()
