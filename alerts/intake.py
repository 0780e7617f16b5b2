"""Takes in what people and other systems report by hand: one anomaly of origin manual, once.

The Idempotency-Key gives the row's id, so a repeated call meets the same row.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.dateparse import parse_datetime

from alerts.errors import IntakeError
from anomalies.live import publisher
from anomalies.models import Anomaly, Outbox, Severity
from anomalies.results import result_of
from streams.models import Series

NAMESPACE = uuid.UUID("3c1f7d52-6f0e-5a7b-9d1c-51d1ce7a1e27")
FIELDS = ("source", "metric", "value", "timestamp", "anomaly_type", "anomaly_score", "severity",
          "message")  # fmt: skip
DEFAULT_TYPE = "manual"
BANDS = ((0.95, Severity.CRITICAL), (0.90, Severity.HIGH), (0.85, Severity.MEDIUM))
# The years that timestamps of events may lie in.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Report:
    """A report as it was understood."""

    source: str
    metric: str
    value: float
    at: datetime
    anomaly_type: str = DEFAULT_TYPE
    score: float | None = None
    severity: Severity = Severity.MEDIUM
    message: str = ""


def read_report(body: Any) -> Report:
    """The report that a JSON body holds; raises IntakeError at the first field that is wrong."""
    if not isinstance(body, dict):
        raise IntakeError("body", "The body is no JSON object.", "an object with source, metric …")
    for name in body:
        if name not in FIELDS:
            raise IntakeError(str(name)[:60], "This field is not known.", ", ".join(FIELDS))
    score = None
    if body.get("anomaly_score") is not None:
        score = _number(body, "anomaly_score", 0.0, 1.0)
    return Report(
        source=_text(body, "source", 255, needed=True),
        metric=_text(body, "metric", 255, needed=True),
        value=_number(body, "value", -math.inf, math.inf),
        at=_moment(body.get("timestamp")),
        anomaly_type=_text(body, "anomaly_type", 40) or DEFAULT_TYPE,
        score=score,
        severity=_severity(body.get("severity"), score),
        message=_text(body, "message", 4_000),
    )


def take_in(report: Report, key: str | None) -> tuple[Anomaly, bool]:
    """The stored anomaly and whether this call made it; live pages hear of it after the commit."""
    pk = uuid.uuid5(NAMESPACE, key) if key else uuid.uuid4()
    try:
        with transaction.atomic():
            anomaly = _row(pk, report)
            anomaly.save(force_insert=True)
            result = result_of(anomaly)
            Outbox.objects.create(
                anomaly=anomaly, sequence=0, kind=Outbox.Kind.MANUAL, payload=result
            )
            transaction.on_commit(lambda: push([result | {"change": "manual"}]))
    except IntegrityError:
        return Anomaly.objects.select_related("stream").get(pk=pk), False
    return anomaly, True


def _row(pk: uuid.UUID, report: Report) -> Anomaly:
    series = Series.objects.filter(source=report.source, metric=report.metric)
    known = series.select_related("stream").order_by("pk").first()
    return Anomaly(
        id=pk, series=known, stream=known.stream if known else None, source=report.source,
        metric=report.metric, origin=Anomaly.Origin.MANUAL, kind="manual",
        anomaly_type=report.anomaly_type, state=Anomaly.State.CLOSED, severity=report.severity,
        onset_at=report.at, end_at=report.at, value=report.value, score=report.score,
        peak_value=report.value, peak_score=report.score, peak_at=report.at,
        message=report.message,
    )  # fmt: skip


def push(results: list[dict[str, Any]]) -> None:
    """Tell live pages."""
    now = datetime.now(UTC).isoformat()
    publisher().publish(
        {"type": "update", "at": now, "events": 0, "rejects": 0, "anomalies": results}
    )


def _text(body: dict[str, Any], field: str, longest: int, *, needed: bool = False) -> str:
    value = body.get(field)
    allowed = f"text of {1 if needed else 0} to {longest} characters"
    if value is None and not needed:
        return ""
    if value is None:
        raise IntakeError(field, "This field is missing.", allowed)
    if not isinstance(value, str) or "\x00" in value or len(value) > longest:
        raise IntakeError(field, "This is no text that fits.", allowed)
    if needed and not value.strip():
        raise IntakeError(field, "This field is empty.", allowed)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise IntakeError(field, "This is no valid Unicode.", allowed) from None
    return value


def _number(body: dict[str, Any], field: str, least: float, most: float) -> float:
    value = body.get(field)
    allowed = "a finite number" if math.isinf(least) else f"a number from {least:g} to {most:g}"
    if value is None:
        raise IntakeError(field, "This field is missing.", allowed)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise IntakeError(field, "This is no number.", allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not least <= number <= most:
        raise IntakeError(field, "This number is out of range.", allowed)
    return number


def _moment(value: Any) -> datetime:
    allowed = "ISO 8601 with a zone (2024-01-01T12:00:00Z), or epoch seconds, ms, µs or ns"
    if value is None:
        raise IntakeError("timestamp", "This field is missing.", allowed)
    found: datetime | None = None
    if isinstance(value, str):
        try:
            found = parse_datetime(value)
        except ValueError:
            found = None
        if found is not None and found.tzinfo is None:
            raise IntakeError("timestamp", "The time zone is missing.", allowed)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = _from_epoch(value)
    if found is None:
        raise IntakeError("timestamp", "This is no moment.", allowed)
    try:
        found = found.astimezone(UTC)
    except OverflowError:
        found = LATEST
    if not EARLIEST <= found < LATEST:
        raise IntakeError("timestamp", "This moment is out of range.", "1970 to 2199")
    return found


def _from_epoch(value: float) -> datetime | None:
    try:
        seconds = float(value)
    except OverflowError:
        return None
    # As for events: the size tells the unit.
    for unit in (1e9, 1e6, 1e3):
        if abs(seconds) >= 1e8 * unit:
            seconds /= unit
            break
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _severity(value: Any, score: float | None) -> Severity:
    names = {str(level.label): level for level in Severity}
    if value is not None:
        if not isinstance(value, str) or value not in names:
            raise IntakeError("severity", "This is no severity.", ", ".join(names))
        return names[value]
    if score is None:
        return Severity.MEDIUM
    return next((level for least, level in BANDS if score >= least), Severity.LOW)
