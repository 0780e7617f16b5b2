"""A stream's row follows the configuration, and its topic is what it is known by."""

from __future__ import annotations

import pytest

from config.schema import Stream as StreamConfig
from config.schema import VigilConfig
from config.wiring import ensure_stream
from streams.errors import UnusableError
from streams.models import Stream

pytestmark = pytest.mark.django_db


def test_a_stream_keeps_its_row_and_takes_new_settings() -> None:
    first = ensure_stream(VigilConfig(), StreamConfig(name="web", topic="raw"))
    given = StreamConfig(name="web", topic="raw", time_zone="Europe/Berlin")
    assert ensure_stream(VigilConfig(), given).pk == first.pk
    assert Stream.objects.get().time_zone == "Europe/Berlin"


def test_a_new_name_of_a_topic_renames_its_stream() -> None:
    first = ensure_stream(VigilConfig(), StreamConfig(name="web", topic="raw"))
    assert ensure_stream(VigilConfig(), StreamConfig(name="shop", topic="raw")).pk == first.pk
    assert Stream.objects.get().name == "shop"


def test_a_name_and_a_topic_of_two_streams_are_refused_in_words() -> None:
    ensure_stream(VigilConfig(), StreamConfig(name="web", topic="raw"))
    ensure_stream(VigilConfig(), StreamConfig(name="shop", topic="orders"))
    with pytest.raises(UnusableError, match=r"shop can't watch topic raw.*stream web's"):
        ensure_stream(VigilConfig(), StreamConfig(name="shop", topic="raw"))
    assert set(Stream.objects.values_list("name", "topic")) == {("web", "raw"), ("shop", "orders")}
