"""Exports: as narrowed and ordered, streamed in chunks, and no formula for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from anomalies import export, feedback, listing
from anomalies.filters import Filters
from tests import builders

pytestmark = pytest.mark.django_db(transaction=True)
START = datetime(2024, 1, 1, tzinfo=UTC)


async def _parts(path: str) -> tuple[StreamingHttpResponse, list[bytes]]:
    client = AsyncClient()
    user = await sync_to_async(builders.user)()
    await client.aforce_login(user)
    response: Any = await client.get(path)
    assert response.status_code == 200
    assert response.is_async
    body: AsyncIterator[bytes] = response.streaming_content
    return response, [part async for part in body]


async def test_a_csv_holds_all_that_match_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing.chunks, "__defaults__", (10,))

    def fill() -> None:
        for i in range(25):
            builders.anomaly(at=START + timedelta(minutes=i), source="pump", value=-float(i))
        builders.anomaly(at=START, source="other")

    await sync_to_async(fill)()
    response, parts = await _parts("/anomalies/export.csv?source=pump&sort=oldest")
    # The names, ten, ten, five: never all at once.
    assert [part.count(b"\r\n") for part in parts] == [1, 10, 10, 5]
    rows = list(csv.DictReader(io.StringIO(b"".join(parts).decode())))
    assert [float(row["value"]) for row in rows] == [-float(i) for i in range(25)]
    assert rows[0]["timestamp"] == "2024-01-01T00:00:00Z"
    assert response["Content-Disposition"].startswith('attachment; filename="anomalies-')


async def test_no_cell_is_a_formula_and_json_lines_say_it_as_it_is() -> None:
    evil = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "ok=1"]

    def fill() -> None:
        for i, name in enumerate(evil):
            builders.anomaly(at=START + timedelta(minutes=i), source=name, value=-1.5)
        odd = builders.anomaly(at=START + timedelta(hours=1), source='z, "quoted"\nline')
        feedback.set_label(odd.pk, "real", builders.user("olga"))

    await sync_to_async(fill)()
    _, parts = await _parts("/anomalies/export.csv?sort=oldest")
    rows = list(csv.DictReader(io.StringIO(b"".join(parts).decode(), newline="")))
    assert [row["source"] for row in rows[:-1]] == [f"'{name}" for name in evil[:-1]] + ["ok=1"]
    assert rows[-1]["source"] == 'z, "quoted"\nline'
    assert (rows[-1]["label"], rows[-1]["labelled_by"]) == ("real", "olga")
    assert {row["value"] for row in rows} == {"-1.5", "1284.0"}
    text = "".join([part async for part in _lines()])
    found = [json.loads(line) for line in text.splitlines()]
    assert [row["source"] for row in found[:-1]] == evil
    assert (found[-1]["label"], found[-1]["labelled_by"]) == ("real", "olga")


async def _lines() -> AsyncIterator[str]:
    async for part in export.stream(Filters(), listing.SORTS["oldest"], "jsonl"):
        yield part
