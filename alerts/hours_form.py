"""Hours as a form: days and times to a row and back. What can't be read keeps what was typed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.http import QueryDict
from pydantic import ValidationError

from alerts.hours import DAYS, HoursSpec, Timetable
from alerts.models import Hours
from alerts.problems import problems_of
from alerts.rules import keeps_its_name

MOST_SPANS = 12
EMPTY = 2  # rows that wait to be filled in


@dataclass(slots=True)
class SpanRow:
    """One row of the form: some days, from one time to another."""

    days: list[str] = field(default_factory=list)
    start: str = ""
    end: str = ""
    error: str = ""

    @property
    def empty(self) -> bool:
        return not (self.days or self.start or self.end)


@dataclass(slots=True)
class HoursForm:
    """Values by field as text, rows of days and times, and what is wrong by field."""

    values: dict[str, str]
    spans: list[SpanRow]
    errors: dict[str, str] = field(default_factory=dict)
    row: Hours | None = None

    @property
    def rows(self) -> list[SpanRow]:
        """The rows with some empty ones to go on."""
        return [*self.spans, *(SpanRow() for _ in range(min(EMPTY, MOST_SPANS - len(self.spans))))]


def of_row(row: Hours | None) -> HoursForm:
    """A form that says what stored hours say; Monday to Friday for new ones."""
    if row is None:
        usual = SpanRow(list(DAYS[:5]), "09:00", "17:00")
        return HoursForm({"name": "", "time_zone": "UTC", "holidays": "", "dates": ""}, [usual])
    spans = [
        SpanRow(list(s.get("days", [])), str(s.get("from", "")), str(s.get("to", "")))
        for s in row.weekly
    ]
    values = {"name": row.name, "time_zone": row.time_zone, "holidays": row.holidays,
              "dates": ", ".join(map(str, row.dates))}  # fmt: skip
    return HoursForm(values, spans, row=row)


def of_post(post: QueryDict, before: Hours | None) -> HoursForm:
    """What was typed, read into a row that is not saved."""
    values = {n: _clean(post.get(n, "")) for n in ("name", "time_zone", "holidays", "dates")}
    spans = []
    for i in range(MOST_SPANS):
        days = [d for d in DAYS if d in post.getlist(f"days.{i}")]
        one = SpanRow(days, _clean(post.get(f"from.{i}", "")), _clean(post.get(f"to.{i}", "")))
        if not one.empty:
            spans.append(one)
    form = HoursForm(values, spans)
    row = Hours(pk=before.pk if before else None, name=values["name"])
    _name(form, row, before)
    _read(form, row)
    form.row = None if form.errors or any(s.error for s in spans) else row
    return form


def _name(form: HoursForm, row: Hours, before: Hours | None) -> None:
    others = Hours.objects.filter(name=row.name)
    if not 0 < len(row.name) <= 100 or not row.name.isprintable():
        form.errors["name"] = "A name has 1 to 100 characters."
    elif row.name[0] in "+-":
        form.errors["name"] = "A name begins with neither + nor -."
    elif (others if before is None else others.exclude(pk=before.pk)).exists():
        form.errors["name"] = "There are hours of that name already."
    elif before is not None and (why := keeps_its_name("hours", before.name, row.name)):
        form.errors["name"] = why


def _read(form: HoursForm, row: Hours) -> None:
    given = form.values
    data: dict[str, Any] = {
        "time_zone": given["time_zone"] or "UTC", "holidays": given["holidays"].upper(),
        "dates": [d for d in re.split(r"[\s,;]+", given["dates"]) if d],
        "weekly": [{"days": s.days, "from": s.start, "to": s.end} for s in form.spans],
    }  # fmt: skip
    try:
        spec = HoursSpec.model_validate(data)
    except ValidationError as error:
        for problem in problems_of(error, HoursSpec):
            _place(form, problem.path.split("."), problem.sentence)
        return
    if not spec.weekly:
        form.errors["weekly"] = "At least one row with days and times."
        return
    said = spec.model_dump(mode="json", by_alias=True)
    row.time_zone, row.weekly = said["time_zone"], said["weekly"]
    row.holidays, row.dates = said["holidays"], said["dates"]


def _place(form: HoursForm, path: list[str], sentence: str) -> None:
    """Put a mistake to its field."""
    if path[0] == "weekly" and len(path) > 1 and path[1].isdecimal():
        part = path[2] if len(path) > 2 else ""
        words = {"days": "Tick at least one day.", "from": "From a time like 08:00.",
                 "to": "To a time like 18:00, or 24:00."}  # fmt: skip
        span = form.spans[int(path[1])]
        span.error = f"{span.error} {words.get(part, sentence)}".strip()
    elif path[0] == "dates":
        form.errors["dates"] = "Days are written like 2026-12-24, several by commas."
    else:
        form.errors.setdefault(path[0] if path[0] in form.values else "weekly", sentence)


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether hours hold now, when that changes, and the next days off."""

    within: bool
    change: datetime | None
    off: tuple[datetime, ...] = ()


def standing(row: Hours, now: datetime) -> Standing | None:
    """How it stands; None where the row can't be read."""
    try:
        table = Timetable.read(row)
    except ValidationError:
        return None
    days = (now + timedelta(days=n) for n in range(366))
    off = tuple(d for d in days if table.is_off(d.date()))
    return Standing(table.within(now), table.next_change(now), off[:4])


def _clean(text: str) -> str:
    return " ".join(text.replace("\x00", "").split())[:20_000]
