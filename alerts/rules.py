"""Rules as they are edited: a draft that tells nobody, versions that never change, one is live.

Pages, the admin and the command change rules by these functions alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any, Literal

from django.core import signing
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from pydantic import ValidationError

from alerts.models import Hours, Receiver, Rule, RuleVersion, Silence, Team
from alerts.problems import Problem, WrongError, problems_of, shown
from alerts.quieting import NAMED_ONLY
from alerts.spec import RuleSpec
from alerts.yaml_text import written
from streams import audit
from streams.audit import Action, Actor
from streams.models import AuditEntry

LONGEST_NAME = 100
DRAFT = ("draft", "draft_by", "draft_at", "draft_reverts")
_SALT = "alerts.rules.seen"
SEEN_FOR_S = 86_400


class RuleError(Exception):
    """A change that can't be made now; the text is for people."""


def read_spec(data: Any, *, at: str = "", file: str = "") -> RuleSpec:
    """Of JSON or YAML data; raises WrongError with every mistake, unknown names included."""
    try:
        spec = RuleSpec.read({} if data is None else data)
    except ValidationError as error:
        raise WrongError(problems_of(error, RuleSpec, at, file)) from None
    return spec


def unknown_names(spec: RuleSpec, *, at: str = "", file: str = "") -> list[Problem]:
    """Receivers, hours and silences that the rule names and nobody has made."""
    receivers = set(Receiver.objects.values_list("name", flat=True))
    hours = set(Hours.objects.values_list("name", flat=True))
    silences = set(Silence.objects.values_list("name", flat=True))
    return names_missing(spec, receivers, hours, silences, at=at, file=file)


def names_missing(
    spec: RuleSpec, receivers: set[str], hours: set[str], silences: set[str], *, at: str = "",
    file: str = "",
) -> list[Problem]:  # fmt: skip
    """The same, of names that are known already."""
    found: list[Problem] = []

    def look(path: str, name: str, known: set[str], what: str) -> None:
        if name not in known:
            place = f"{at}.{path}" if at else path
            allowed = ", ".join(sorted(known)[:20]) or f"none, there is no {what} yet"
            found.append(Problem(place, shown(name), f"the name of a {what}: {allowed}", file))

    for i, step in enumerate(spec.send):
        look(f"send.{i}.receiver", step.receiver, receivers, "receiver")
        if step.hours:
            look(f"send.{i}.hours", step.hours, hours, "timetable")
    for i, name in enumerate(spec.silences):
        look(f"silences.{i}", name, silences, "silence")
    return found


def naming(what: Literal["receiver", "hours", "silence"], name: str) -> list[str]:
    """Rules that name it, live or in a draft; a rule that is retired counts no more."""
    found = []
    for rule in Rule.objects.filter(retired_at=None).select_related("live").order_by("name"):
        specs = [s for s in (rule.live.spec if rule.live else None, rule.draft) if s]
        for spec in specs:
            steps = spec.get("send", ())
            named = spec.get("silences", ()) if what == "silence" else [s.get(what) for s in steps]
            if name in named:
                found.append(rule.name)
                break
    return found


def keeps_its_name(what: Literal["receiver", "hours", "silence"], name: str, other: str) -> str:
    """Why it can't be called otherwise: rules name it; empty where it can, or is not to be."""
    found = naming(what, name) if name != other else []
    if not found:
        return ""
    some = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"It has to stay {name!r}: {some} name{'s' * (len(found) == 1)} it so."


def checked_name(name: str, taken_by: int | None = None) -> str:
    """A rule's name without spaces around it; raises RuleError where it can't be one."""
    name = name.strip()
    if not name or "\x00" in name or len(name) > LONGEST_NAME:
        raise RuleError(f"A rule's name has 1 to {LONGEST_NAME} characters.")
    if name == NAMED_ONLY:
        raise RuleError("A rule's name is more than a dash.")
    others = Rule.objects.filter(name=name)
    other = (others if taken_by is None else others.exclude(pk=taken_by)).first()
    if other is not None:
        kind = "rule" if other.retired_at is None else "retired rule"
        raise RuleError(f"There is a {kind} {name!r} already.")
    return name


# ---- Drafts and versions -------------------------------------------------------------------------
def make(name: str, spec: RuleSpec, user: Actor) -> Rule:
    """A new rule: a draft, not enabled."""
    with transaction.atomic():
        rule = Rule.objects.create(
            name=checked_name(name), draft=spec.stored(), draft_by_id=audit.key_of(user),
            draft_at=timezone.now(),
        )  # fmt: skip
        audit.record(user, Action.CREATED, rule, None, facts(rule))
    return rule


def live_spec(rule: Rule) -> RuleSpec | None:
    """What counts now."""
    return RuleSpec.read(rule.live.spec) if rule.live is not None else None


def shown_spec(rule: Rule) -> RuleSpec:
    """The draft, else what is live, else an empty one."""
    if rule.draft is not None:
        return RuleSpec.read(rule.draft)
    return live_spec(rule) or RuleSpec()


def next_number(rule: Rule) -> int:
    """The number that the draft would get."""
    return int(rule.versions.aggregate(most=Max("number"))["most"] or 0) + 1


def save_draft(rule: Rule, spec: RuleSpec, user: Actor) -> None:
    """Keep what is edited; a draft that says what is live is none."""
    live = live_spec(rule)
    if rule.draft is None or RuleSpec.read(rule.draft) != spec:
        rule.draft_reverts = None
    rule.draft = None if live is not None and live == spec else spec.stored()
    rule.draft_by_id = audit.key_of(user)
    rule.draft_at = timezone.now()
    rule.save(update_fields=DRAFT)


def discard(rule: Rule, user: Actor) -> bool:
    """Forget the draft; a rule that never was live goes with it. Says whether it is still there."""
    with transaction.atomic():
        rule = Rule.objects.select_for_update(of=("self",)).get(pk=rule.pk)
        if rule.live_id is None:
            audit.record(user, Action.DELETED, rule, facts(rule), None)
            rule.delete()
            return False
        rule.draft = rule.draft_by = rule.draft_at = rule.draft_reverts = None
        rule.save(update_fields=DRAFT)
    return True


def seen_token(rule: Rule, spec: RuleSpec, user: Actor) -> str:
    """What a preview hands out: this user saw what this very spec of this rule would have sent."""
    return signing.dumps([rule.pk, fingerprint(spec), audit.key_of(user)], salt=_SALT)


def was_seen(token: str, rule: Rule, spec: RuleSpec, user: Actor) -> bool:
    """Whether a token is of a preview of this spec, of the last day."""
    try:
        found = signing.loads(token, salt=_SALT, max_age=SEEN_FOR_S)
    except signing.BadSignature:
        return False
    return bool(found == [rule.pk, fingerprint(spec), audit.key_of(user)])


def fingerprint(spec: RuleSpec) -> str:
    """The same for specs that say the same."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_live(
    rule: Rule, spec: RuleSpec, user: Actor, *, enable: bool | None = True
) -> RuleVersion:
    """A new version that counts from now on.

    Raises:
        RuleError: where it names a receiver, hours or silence that there are none of.
    """
    missing = unknown_names(spec)
    if missing:
        raise RuleError(" ".join(f"{p.path}: {p.found} is not {p.allowed}." for p in missing))
    with transaction.atomic():
        row = _held(rule)
        before, takes_back = facts(row), row.draft_reverts
        version = RuleVersion.objects.create(
            rule=row, number=next_number(row), spec=spec.stored(), created_by_id=audit.key_of(user)
        )
        row.live = version
        row.draft = row.draft_by = row.draft_at = row.draft_reverts = row.retired_at = None
        if enable is not None:
            row.enabled = enable
        row.save(update_fields=["live", "enabled", "retired_at", *DRAFT])
        with audit.taking_back(takes_back):
            audit.record(user, Action.CHANGED, row, before, facts(row))
    return version


def set_enabled(rule: Rule, enabled: bool, user: Actor) -> None:
    """Let a rule count or not; raises RuleError where nothing of it is live."""
    with transaction.atomic():
        row = _held(rule)
        if enabled and row.live_id is None:
            raise RuleError("Nothing of this rule is live yet: make its draft live.")
        if row.enabled == enabled and (row.retired_at is None or not enabled):
            return
        before = facts(row)
        row.enabled = enabled
        if enabled:
            row.retired_at = None
        row.save(update_fields=["enabled", "retired_at"])
        audit.record(user, Action.CHANGED, row, before, facts(row))


def keep_solved(rule: Rule, score: float | None) -> None:
    """The least score that a budget asks for, for the evaluator; None where there is no budget."""
    at = timezone.now() if score is not None else None
    Rule.objects.filter(pk=rule.pk).update(solved_score=score, solved_at=at)


def retire(rule: Rule, user: Actor) -> None:
    """Out of use for good: it tells nobody and leaves the lists; versions and incidents stay.

    Its open incidents end as they would. Raises RuleError where it never was live.
    """
    with transaction.atomic():
        row = _held(rule)
        if row.live_id is None:
            raise RuleError("It never was live: discard it instead.")
        if row.retired_at is not None:
            return
        before = facts(row)
        row.retired_at, row.enabled = timezone.now(), False
        row.draft = row.draft_by = row.draft_at = row.draft_reverts = None
        row.save(update_fields=["retired_at", "enabled", *DRAFT])
        audit.record(user, Action.CHANGED, row, before, facts(row))


def bring_back(rule: Rule, user: Actor) -> None:
    """A retired rule is in the lists again; off, until it is switched on from its preview."""
    with transaction.atomic():
        row = _held(rule)
        before = facts(row)
        row.retired_at = None
        row.save(update_fields=["retired_at"])
        audit.record(user, Action.CHANGED, row, before, facts(row))


def describe(rule: Rule, name: str, team: Team | None, user: Actor) -> None:
    """Another name and team; raises RuleError where the name can't be one."""
    with transaction.atomic():
        row = _held(rule)
        before = facts(row)
        row.name, row.team = checked_name(name, row.pk), team
        row.save(update_fields=["name", "team"])
        audit.record(user, Action.CHANGED, row, before, facts(row))


def draft_of(
    rule: Rule, spec: RuleSpec, user: Actor, takes_back: AuditEntry | None = None
) -> None:  # fmt: skip
    """Take an earlier text up as a draft: it goes through the preview like any other."""
    with transaction.atomic():
        save_draft(rule, spec, user)
        if rule.draft is not None and takes_back is not None:
            rule.draft_reverts = takes_back
            rule.save(update_fields=["draft_reverts"])


def difference(before: RuleSpec | None, after: RuleSpec) -> list[tuple[str, str]]:
    """Lines of YAML: (" ", "-" or "+", text)."""
    return lines_between(before.stored() if before is not None else {}, after.stored())


def lines_between(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    """The same of plain data."""
    found = difflib.ndiff(written(before).splitlines(), written(after).splitlines())
    return [(line[0], line[2:]) for line in found if line[0] in " -+"]


def facts(rule: Rule) -> dict[str, Any]:
    """What a rule says, for the audit; a draft counts only where nothing is live."""
    live = rule.live
    return {
        "name": rule.name, "enabled": rule.enabled, "team": rule.team.name if rule.team else None,
        "retired": rule.retired_at is not None, "version": live.number if live else None,
        "spec": live.spec if live else None,
    }  # fmt: skip


def _held(rule: Rule) -> Rule:
    """The rule as it is now, locked until the transaction ends."""
    rows = Rule.objects.select_for_update(of=("self",))
    return rows.select_related("live", "team", "draft_reverts").get(pk=rule.pk)
