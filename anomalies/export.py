"""A list of anomalies as a file, streamed: CSV that spreadsheets can't take for formulas, and JSON
lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections
from django.utils import timezone

from anomalies import listing
from anomalies.filters import Filters
from anomalies.listing import Sort
from anomalies.models import Anomaly
from anomalies.results import result_of

Lines = Callable[[list[Anomaly]], str]
COLUMNS = (
    "id", "timestamp", "end_timestamp", "stored_at", "stream", "source", "metric", "severity",
    "anomaly_type", "state", "anomaly_score", "peak_score", "value", "peak_value", "expected_low",
    "expected_mid", "expected_high", "count", "origin", "label", "labelled_by", "labelled_at",
    "model_version", "partition", "offset", "explanation",
)  # fmt: skip
# What Excel, LibreOffice and Google's tables begin a formula with.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def row_of(anomaly: Anomaly) -> dict[str, Any]:
    """A result with its label; needs `stream` and `labelled_by` loaded."""
    by = anomaly.labelled_by
    return result_of(anomaly) | {
        "stored_at": _moment(anomaly.stored_at), "label": anomaly.label or None,
        "labelled_by": by.get_username() if by else None,
        "labelled_at": _moment(anomaly.labelled_at),
    }  # fmt: skip


def csv_lines(rows: list[Anomaly]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for anomaly in rows:
        row = row_of(anomaly)
        expected = row["expected"] or {}
        row |= {f"expected_{name}": expected.get(name) for name in ("low", "mid", "high")}
        writer.writerow([cell(row[name]) for name in COLUMNS])
    return text.getvalue()


def json_lines(rows: list[Anomaly]) -> str:
    return "".join(json.dumps(row_of(a), ensure_ascii=False) + "\n" for a in rows)


def cell(value: Any) -> Any:
    """A text that would be a formula is quoted with an apostrophe; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(FORMULAS):
        return f"'{value}"
    return value


HEADERS = {"csv": ",".join(COLUMNS) + "\r\n", "jsonl": ""}
LINES: dict[str, Lines] = {"csv": csv_lines, "jsonl": json_lines}
TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


async def stream(filters: Filters, sort: Sort, form: str) -> AsyncIterator[str]:
    """The file, a chunk of rows at a time. Asynchronous: Django would make a list of any other."""
    yield HEADERS[form]
    parts = listing.chunks(filters, sort)
    while text := await sync_to_async(_next)(parts, LINES[form]):
        yield text


def name_of(form: str) -> str:
    return f"anomalies-{timezone.now():%Y%m%d-%H%M%S}.{form}"


def _next(parts: Iterator[list[Anomaly]], lines: Lines) -> str:
    rows = next(parts, None)
    text = "" if rows is None else lines(rows)
    # Between two chunks the connection is the pool's: a slow reader must not keep it.
    close_old_connections()
    return text


def _moment(at: Any) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
