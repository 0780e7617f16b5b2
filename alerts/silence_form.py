"""A silence as a form: fields to a row and back. Times are by the clock of its own time zone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.http import QueryDict
from django.utils import timezone
from pydantic import ValidationError

from alerts.hours import checked_zone
from alerts.models import Rule, Silence
from alerts.problems import problems_of
from alerts.quieting import NAMED_ONLY
from alerts.recurrence import BadRecurrenceError, Recurrence
from alerts.rule_form import listed, series_of, tags_of
from alerts.rules import keeps_its_name
from alerts.spec import Matcher

FIELDS = ("name", "streams", "series", "types", "tags", "min_severity", "max_severity", "rules",
          "starts", "ends", "time_zone", "again", "recurrence", "comment")  # fmt: skip
AGAIN = [("", "once"), ("FREQ=DAILY", "every day"), ("FREQ=WEEKLY", "every week"),
         ("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "Monday to Friday"),
         ("FREQ=MONTHLY", "every month"), ("custom", "by a rule …")]  # fmt: skip
LOWEST = [("low", "low"), ("medium", "medium"), ("high", "high"), ("critical", "critical")]
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class SilenceForm:
    """Values by field as text, and what is wrong by field; ``row`` where all could be read."""

    values: dict[str, str]
    maintenance: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    row: Silence | None = None


def of_row(row: Silence) -> SilenceForm:
    """A form that says what a stored silence says."""
    match = Matcher.model_validate(row.matcher)
    zone = ZoneInfo(row.time_zone)
    usual = row.recurrence in dict(AGAIN)
    return SilenceForm({
        "name": row.name, "streams": ", ".join(match.streams),
        "series": f"{', '.join(match.sources) or '*'} / {', '.join(match.metrics) or '*'}",
        "types": ", ".join(match.types),
        "tags": ", ".join(f"{k}={v}" for k, v in match.tags.items()),
        "min_severity": match.min_severity, "max_severity": match.max_severity,
        "rules": ", ".join(match.rules),
        "starts": f"{row.starts_at.astimezone(zone):%Y-%m-%dT%H:%M}",
        "ends": f"{row.ends_at.astimezone(zone):%Y-%m-%dT%H:%M}", "time_zone": row.time_zone,
        "again": row.recurrence if usual else "custom",
        "recurrence": "" if usual else row.recurrence, "comment": row.comment,
    }, row.maintenance, row=row)  # fmt: skip


def empty(now: datetime, given: QueryDict) -> SilenceForm:
    """For a new one: two hours from now, with what a link names."""
    start = timezone.localtime(now).replace(second=0, microsecond=0)
    form = SilenceForm({
        "name": "", "streams": "", "series": "* / *", "types": "", "tags": "",
        "min_severity": "low", "max_severity": "critical", "rules": "",
        "starts": f"{start:%Y-%m-%dT%H:%M}", "ends": f"{start + timedelta(hours=2):%Y-%m-%dT%H:%M}",
        "time_zone": timezone.get_current_timezone_name(), "again": "", "recurrence": "",
        "comment": "",
    })  # fmt: skip
    for name in ("name", "streams", "series", "rules"):
        if name in given:
            form.values[name] = _clean(str(given[name]))
    return form


def of_post(post: QueryDict, before: Silence | None) -> SilenceForm:
    """What was typed, read into a row that is not saved."""
    values = {name: _clean(post.get(name, "")) for name in FIELDS}
    form = SilenceForm(values, "maintenance" in post)
    row = Silence(pk=before.pk if before else None)
    if before is not None:
        row.enabled, row.created_at = before.enabled, before.created_at
        row.created_by_id = before.created_by_id
    row.maintenance, row.comment = form.maintenance, values["comment"]
    row.name = values["name"]
    if not 0 < len(row.name) <= 140:
        form.errors["name"] = "A name has 1 to 140 characters."
    else:
        others = Silence.objects.filter(name=row.name)
        if (others if before is None else others.exclude(pk=before.pk)).exists():
            form.errors["name"] = "There is a silence of that name already; rules name them by it."
        if before is not None and (why := keeps_its_name("silence", before.name, row.name)):
            form.errors.setdefault("name", why)
    _match(form, row)
    _times(form, row)
    form.row = None if form.errors else row
    return form


def _match(form: SilenceForm, row: Silence) -> None:
    given = form.values
    sources, metrics = series_of(given["series"])
    tags = tags_of(given["tags"])
    if tags is None:
        form.errors["tags"] = "Tags are written like team=payments, site=fra-*."
    names = listed(given["rules"])
    known = set(Rule.objects.values_list("name", flat=True)) | {NAMED_ONLY}
    if missing := [n for n in names if n not in known]:
        form.errors["rules"] = f"There is no rule {missing[0]!r}."
    data: dict[str, Any] = {
        "streams": listed(given["streams"]), "sources": sources, "metrics": metrics,
        "types": listed(given["types"]), "tags": tags or {}, "rules": names,
        "min_severity": given["min_severity"] or "low",
        "max_severity": given["max_severity"] or "critical",
    }  # fmt: skip
    try:
        row.matcher = Matcher.model_validate(data).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        for problem in problems_of(error, Matcher):
            name = problem.path.split(".")[0]
            name = "series" if name in ("sources", "metrics") else name or "max_severity"
            form.errors.setdefault(name if name in FIELDS else "name", problem.sentence)


def _times(form: SilenceForm, row: Silence) -> None:
    given = form.values
    try:
        row.time_zone = checked_zone(given["time_zone"] or "UTC")
    except ValueError as error:
        form.errors["time_zone"] = f"{error}."
        return
    zone = ZoneInfo(row.time_zone)
    for name, column in (("starts", "starts_at"), ("ends", "ends_at")):
        try:
            local = datetime.fromisoformat(given[name])
            moment = (local if local.tzinfo else local.replace(tzinfo=zone)).astimezone(UTC)
            if not EARLIEST <= moment < LATEST:
                raise ValueError
        except (ValueError, OverflowError):
            form.errors[name] = "A day and a time between 2000 and 2099, like 2026-11-22T02:00."
            continue
        setattr(row, column, moment)
    again = given["again"]
    row.recurrence = given["recurrence"] if again == "custom" else again
    if again == "custom" and not row.recurrence:
        form.errors["recurrence"] = "A rule of RFC 5545, like FREQ=MONTHLY;BYDAY=1SU."
    if len(row.recurrence) > 400:
        form.errors["recurrence"] = "At most 400 characters."
    if form.errors.keys() & {"starts", "ends", "recurrence"}:
        return
    try:
        Recurrence(row.starts_at, row.ends_at, row.recurrence, row.time_zone).check()
    except BadRecurrenceError as error:
        about_end = "ends before" in str(error) or "31 days" in str(error)
        form.errors["ends" if about_end else "recurrence"] = str(error)


def choices() -> dict[str, Any]:
    """What the selects offer."""
    names = Rule.objects.order_by("name").values_list("name", flat=True)
    return {
        "again": AGAIN, "severities": LOWEST,
        "rules": [("", "every rule"), (NAMED_ONLY, "only rules that name it"),
                  *((n, n) for n in names)],
    }  # fmt: skip


def _clean(text: str) -> str:
    return text.replace("\x00", "").strip()[:2_000]
