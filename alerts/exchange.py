"""Rules, receivers' names, silences, hours and teams as one YAML document, and back.

What a document says is made so; what it does not name stays as it is. A second apply changes
nothing. Receivers are named with kind and team, never with an address or a secret: they are
there already, or the document is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from django.db import transaction
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alerts import rules, surroundings, yaml_text
from alerts.hours import HoursSpec, checked_zone
from alerts.models import Hours, Receiver, Rule, Silence, Team
from alerts.problems import Problem, WrongError, problems_of, shown
from alerts.recurrence import BadRecurrenceError, Recurrence
from alerts.rules import live_spec
from alerts.silences import facts, save
from alerts.spec import Matcher, Name, RuleSpec
from streams.audit import Actor


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class RuleEntry(_Part):
    """A rule: the spec that is live, and whether it counts."""

    enabled: bool = True
    team: Name | None = None
    spec: RuleSpec = RuleSpec()


class SilenceEntry(_Part):
    """A silence; ``from`` and ``to`` have a zone."""

    match: Matcher = Matcher()
    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    again: Annotated[str, Field(max_length=400)] = ""
    time_zone: str = "UTC"
    maintenance: bool = False
    enabled: bool = True
    comment: Annotated[str, Field(max_length=2_000)] = ""

    @field_validator("start", "end")
    @classmethod
    def _zoned(cls, moment: datetime) -> datetime:
        if moment.tzinfo is None or not 2000 <= moment.year < 2100:
            raise ValueError("a moment of this century with a zone, like 2026-11-22T02:00:00Z")
        return moment.astimezone(UTC)

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        return checked_zone(name)


class TeamEntry(_Part):
    """A team without its members, who are people of this installation."""

    time_zone: str = "UTC"
    budget_per_day: Annotated[float, Field(gt=0, le=100_000)] | None = None

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        return checked_zone(name)


class ReceiverEntry(_Part):
    """A receiver as it is named: for reading, and to see that it is there."""

    kind: str
    team: Name | None = None


class Document(_Part):
    """All of it, by names."""

    teams: dict[Name, TeamEntry] = Field(default_factory=dict)
    hours: dict[Name, HoursSpec] = Field(default_factory=dict)
    receivers: dict[Name, ReceiverEntry] = Field(default_factory=dict)
    silences: dict[Annotated[str, Field(min_length=1, max_length=140)], SilenceEntry] = Field(
        default_factory=dict
    )
    rules: dict[Name, RuleEntry] = Field(default_factory=dict)


@dataclass(slots=True)
class Change:
    """One thing that an apply makes or changes."""

    what: str
    name: str
    new: bool
    lines: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{'new' if self.new else 'changed'} {self.what} {self.name!r}"


def exported() -> str:
    """What stands now, as YAML. Drafts and rules that never were live are left out."""
    document = _stored()
    data = {section: found for section, found in document.items() if found}
    return yaml_text.written(data)


def read(text: str, file: str = "") -> Document:
    """A document, checked against itself and what is stored.

    Raises:
        WrongError: with every mistake: file, path, what was found and what is allowed.
    """
    data = yaml_text.read(text, file)
    try:
        document = Document.model_validate({} if data is None else data)
    except ValidationError as error:
        raise WrongError(problems_of(error, Document, file=file)) from None
    wrong = _wrong(document, file)
    if wrong:
        raise WrongError(wrong)
    return document


def difference(document: Document) -> list[Change]:
    """What applying it would change; nothing where all of it stands already."""
    stored, wanted = _stored(), _data(document)
    found = []
    for section, word in (("teams", "team"), ("hours", "hours"), ("silences", "silence"),
                          ("rules", "rule")):  # fmt: skip
        for name, said in wanted[section].items():
            before = stored[section].get(name)
            if before != said:
                lines = rules.lines_between(before or {}, said)
                found.append(Change(word, name, before is None, lines))
    return found


def apply(document: Document, user: Actor = None) -> list[Change]:
    """Make it so, all or nothing; returns what was changed."""
    with transaction.atomic():
        changes = difference(document)
        for change in changes:
            match change.what:
                case "team":
                    _team(change.name, document.teams[change.name], user)
                case "hours":
                    _hours(change.name, document.hours[change.name], user)
                case "silence":
                    _silence(change.name, document.silences[change.name], user)
                case _:
                    _rule(change.name, document.rules[change.name], user)
    return changes


# ---- What stands ---------------------------------------------------------------------------------
def _stored() -> dict[str, dict[str, Any]]:
    teams = {t.name: TeamEntry(time_zone=t.time_zone, budget_per_day=t.budget_per_day)
             for t in Team.objects.order_by("name")}  # fmt: skip
    hours = {h.name: HoursSpec.model_validate({
        "time_zone": h.time_zone, "weekly": h.weekly, "holidays": h.holidays, "dates": h.dates,
    }) for h in Hours.objects.order_by("name")}  # fmt: skip
    receivers = {r.name: ReceiverEntry(kind=r.kind, team=r.team.name if r.team else None)
                 for r in Receiver.objects.select_related("team").order_by("name")}  # fmt: skip
    silences = {s.name: SilenceEntry(
        match=Matcher.model_validate(s.matcher), start=s.starts_at, end=s.ends_at,
        again=s.recurrence, time_zone=s.time_zone, maintenance=s.maintenance, enabled=s.enabled,
        comment=s.comment,
    ) for s in Silence.objects.order_by("-pk")}  # fmt: skip
    live = {}
    rows = Rule.objects.exclude(live=None).filter(retired_at=None)
    for rule in rows.select_related("live", "team").order_by("name"):
        live[rule.name] = RuleEntry(
            enabled=rule.enabled, team=rule.team.name if rule.team else None,
            spec=live_spec(rule) or RuleSpec(),
        )  # fmt: skip
    return _data(Document(teams=teams, hours=hours, receivers=receivers,
                          silences=dict(sorted(silences.items())), rules=live))  # fmt: skip


def _data(document: Document) -> dict[str, dict[str, Any]]:
    """As plain data; only what differs from the defaults."""
    found: dict[str, dict[str, Any]] = document.model_dump(
        mode="json", exclude_defaults=True, by_alias=True
    )
    return {name: found.get(name, {}) for name in Document.model_fields}


def _wrong(document: Document, file: str) -> list[Problem]:
    found: list[Problem] = []
    teams = set(Team.objects.values_list("name", flat=True)) | set(document.teams)
    stored = dict(Receiver.objects.values_list("name", "kind"))
    hours = set(Hours.objects.values_list("name", flat=True)) | set(document.hours)
    silences = set(Silence.objects.values_list("name", flat=True)) | set(document.silences)
    names = set(Rule.objects.values_list("name", flat=True)) | set(document.rules)
    for name, receiver in document.receivers.items():
        if stored.get(name) != receiver.kind:
            kind = f"of kind {stored[name]}" if name in stored else "made on its page first"
            found.append(Problem(f"receivers.{name}", shown(receiver.kind), f"a receiver {kind}",
                                 file))  # fmt: skip
    for name, rule in document.rules.items():
        found += rules.names_missing(rule.spec, set(stored), hours, silences,
                                     at=f"rules.{name}.spec", file=file)  # fmt: skip
        if rule.team is not None and rule.team not in teams:
            allowed = ", ".join(sorted(teams)) or "no team, there is none"
            found.append(Problem(f"rules.{name}.team", shown(rule.team), allowed, file))
    for name, said in document.silences.items():
        try:
            Recurrence(said.start, said.end, said.again, said.time_zone).check()
        except BadRecurrenceError as error:
            part = "to" if "ends before" in str(error) or "31 days" in str(error) else "again"
            value = said.again if part == "again" else said.end.isoformat()
            found.append(Problem(f"silences.{name}.{part}", shown(value),
                                 f"a window that can be followed: {error}", file))  # fmt: skip
        for rule_name in said.match.rules:
            if rule_name not in names and rule_name != "-":
                allowed = f"the name of a rule: {', '.join(sorted(names))}"
                place = f"silences.{name}.match.rules"
                found.append(Problem(place, shown(rule_name), allowed, file))
    return found


# ---- Making it so --------------------------------------------------------------------------------
def _team(name: str, said: TeamEntry, user: Actor) -> None:
    row = Team.objects.filter(name=name).first()
    before = surroundings.facts(row) if row else None
    row = row or Team(name=name)
    row.time_zone, row.budget_per_day = said.time_zone, said.budget_per_day
    surroundings.save(row, user, before)


def _hours(name: str, said: HoursSpec, user: Actor) -> None:
    row = Hours.objects.filter(name=name).first()
    before = surroundings.facts(row) if row else None
    row = row or Hours(name=name)
    for key, value in said.model_dump(mode="json", by_alias=True).items():
        setattr(row, key, value)
    surroundings.save(row, user, before)


def _silence(name: str, said: SilenceEntry, user: Actor) -> None:
    row = Silence.objects.filter(name=name).order_by("pk").first()
    before = facts(row) if row else None
    row = row or Silence(name=name)
    row.matcher = said.match.model_dump(mode="json", exclude_defaults=True)
    row.starts_at, row.ends_at, row.recurrence = said.start, said.end, said.again
    row.time_zone, row.maintenance, row.enabled = said.time_zone, said.maintenance, said.enabled
    row.comment = said.comment
    save(row, user, before)


def _rule(name: str, said: RuleEntry, user: Actor) -> None:
    row = Rule.objects.filter(name=name).select_related("live", "team").first()
    if row is None:
        row = rules.make(name, said.spec, user)
    wanted = Team.objects.filter(name=said.team).first() if said.team else None
    if row.team_id != (wanted.pk if wanted else None):
        rules.describe(row, row.name, wanted, user)
    if row.retired_at is not None:
        rules.bring_back(row, user)
    if live_spec(row) != said.spec:
        rules.make_live(row, said.spec, user, enable=said.enabled)
    else:
        rules.set_enabled(row, said.enabled, user)
