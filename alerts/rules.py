"""Rules as they are edited: a draft that tells nobody, versions that never change, one is live.

Pages, the admin and the command change rules by these functions alone.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any

from django.core import signing
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from pydantic import ValidationError

from alerts import audit
from alerts.audit import Actor
from alerts.models import AuditEntry, Hours, Receiver, Rule, RuleVersion, Silence
from alerts.problems import Problem, WrongError, problems_of, shown
from alerts.quieting import NAMED_ONLY
from alerts.spec import RuleSpec
from alerts.yaml_text import written

LONGEST_NAME = 100
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


def checked_name(name: str, taken_by: int | None = None) -> str:
    """A rule's name without spaces around it; raises RuleError where it can't be one."""
    name = name.strip()
    if not name or "\x00" in name or len(name) > LONGEST_NAME:
        raise RuleError(f"A rule's name has 1 to {LONGEST_NAME} characters.")
    if name == NAMED_ONLY:
        raise RuleError("A rule's name is more than a dash.")
    others = Rule.objects.filter(name=name)
    if (others if taken_by is None else others.exclude(pk=taken_by)).exists():
        raise RuleError(f"There is a rule {name!r} already.")
    return name


# ---- Drafts and versions -------------------------------------------------------------------------
def make(name: str, spec: RuleSpec, user: Actor, *, via: str = "page") -> Rule:
    """A new rule: a draft, not enabled."""
    with transaction.atomic():
        rule = Rule.objects.create(
            name=checked_name(name), draft=spec.stored(), draft_by_id=_key(user),
            draft_at=timezone.now(),
        )  # fmt: skip
        audit.record(user, AuditEntry.Action.CREATED, rule, None, _facts(rule), via=via)
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
    rule.draft = None if live is not None and live == spec else spec.stored()
    rule.draft_by_id = _key(user)
    rule.draft_at = timezone.now()
    rule.save(update_fields=["draft", "draft_by", "draft_at"])


def discard(rule: Rule, user: Actor) -> bool:
    """Forget the draft; a rule that never was live goes with it. Says whether it is still there."""
    with transaction.atomic():
        rule = Rule.objects.select_for_update(of=("self",)).get(pk=rule.pk)
        if rule.live_id is None:
            audit.record(user, AuditEntry.Action.DELETED, rule, _facts(rule), None)
            rule.delete()
            return False
        rule.draft = rule.draft_by = rule.draft_at = None
        rule.save(update_fields=["draft", "draft_by", "draft_at"])
    return True


def seen_token(rule: Rule, spec: RuleSpec, user: Actor) -> str:
    """What a preview hands out: this user saw what this very spec of this rule would have sent."""
    return signing.dumps([rule.pk, fingerprint(spec), _key(user)], salt=_SALT)


def was_seen(token: str, rule: Rule, spec: RuleSpec, user: Actor) -> bool:
    """Whether a token is of a preview of this spec, of the last day."""
    try:
        found = signing.loads(token, salt=_SALT, max_age=SEEN_FOR_S)
    except signing.BadSignature:
        return False
    return bool(found == [rule.pk, fingerprint(spec), _key(user)])


def fingerprint(spec: RuleSpec) -> str:
    """The same for specs that say the same."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_live(
    rule: Rule, spec: RuleSpec, user: Actor, *, via: str = "page", enable: bool | None = True
) -> RuleVersion:
    """A new version that counts from now on.

    Raises:
        RuleError: where it names a receiver, hours or silence that there are none of.
    """
    missing = unknown_names(spec)
    if missing:
        raise RuleError(" ".join(f"{p.path}: {p.found} is not {p.allowed}." for p in missing))
    with transaction.atomic():
        row = Rule.objects.select_for_update(of=("self",)).select_related("live").get(pk=rule.pk)
        before = _facts(row)
        version = RuleVersion.objects.create(
            rule=row, number=next_number(row), spec=spec.stored(), created_by_id=_key(user)
        )
        row.live = version
        row.draft = row.draft_by = row.draft_at = None
        if enable is not None:
            row.enabled = enable
        row.save(update_fields=["live", "draft", "draft_by", "draft_at", "enabled"])
        audit.record(user, AuditEntry.Action.CHANGED, row, before, _facts(row), via=via)
    return version


def set_enabled(rule: Rule, enabled: bool, user: Actor, *, via: str = "page") -> None:
    """Let a rule count or not; raises RuleError where nothing of it is live."""
    with transaction.atomic():
        row = Rule.objects.select_for_update(of=("self",)).select_related("live").get(pk=rule.pk)
        if enabled and row.live_id is None:
            raise RuleError("Nothing of this rule is live yet: make its draft live.")
        if row.enabled == enabled:
            return
        before = _facts(row)
        row.enabled = enabled
        row.save(update_fields=["enabled"])
        audit.record(user, AuditEntry.Action.CHANGED, row, before, _facts(row), via=via)


def keep_solved(rule: Rule, score: float | None) -> None:
    """The least score that a budget asks for, for the evaluator; None where there is no budget."""
    at = timezone.now() if score is not None else None
    Rule.objects.filter(pk=rule.pk).update(solved_score=score, solved_at=at)


def rename(rule: Rule, name: str, user: Actor) -> None:
    """Another name; raises RuleError where it can't be one."""
    with transaction.atomic():
        row = Rule.objects.select_for_update(of=("self",)).select_related("live").get(pk=rule.pk)
        before = _facts(row)
        row.name = checked_name(name, row.pk)
        row.save(update_fields=["name"])
        audit.record(user, AuditEntry.Action.CHANGED, row, before, _facts(row))


def draft_of_version(rule: Rule, version: RuleVersion, user: Actor) -> None:
    """Take an old version up as a draft: it goes through the preview like any other."""
    save_draft(rule, RuleSpec.read(version.spec), user)


def difference(before: RuleSpec | None, after: RuleSpec) -> list[tuple[str, str]]:
    """Lines of YAML: (" ", "-" or "+", text)."""
    return lines_between(before.stored() if before is not None else {}, after.stored())


def lines_between(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    """The same of plain data."""
    found = difflib.ndiff(written(before).splitlines(), written(after).splitlines())
    return [(line[0], line[2:]) for line in found if line[0] in " -+"]


def _facts(rule: Rule) -> dict[str, Any]:
    live = rule.live
    return {
        "name": rule.name, "enabled": rule.enabled, "team": rule.team.name if rule.team else None,
        "version": live.number if live else None, "spec": live.spec if live else None,
    }  # fmt: skip


def _key(user: Actor) -> int | None:
    return user.pk if user is not None and user.is_authenticated else None
