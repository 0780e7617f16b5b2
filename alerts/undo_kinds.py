"""How each kind of thing is taken back. A rule's text only becomes a draft."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from pydantic import ValidationError as SpecError

from alerts import receiver_form, rules, silences, surroundings
from alerts.audit_words import between
from alerts.models import Hours, Receiver, Rule, Silence, Tag, Team
from alerts.spec import RuleSpec
from alerts.undo import Facts, Kind, Person, Plan, RevertError, Row, checked, differences
from detection import learnt_weights, model_store, promotion
from detection.errors import DetectionError
from detection.models import LearntWeights, ModelVersion, ThresholdPolicy
from streams import audit
from streams.audit import Action
from streams.models import AuditEntry, Stream


class _Policy(Row):
    model = ThresholdPolicy
    made = "Switch it off or delete it in the admin."

    def facts(self, row: Any) -> Facts:
        return audit.facts(row, ThresholdPolicy.FOLLOWS)

    def write(self, row: Any, to: Facts, user: Person, before: Facts | None) -> None:
        for name, value in to.items():
            setattr(row, name, _named(Stream, value) if name == "stream" else value)
        checked(row)
        row.save()
        audit.record(user, Action.CHANGED if before else Action.CREATED, row, before,
                     self.facts(row))  # fmt: skip


class _Surrounding(Row):
    """Hours, teams, tags."""

    def __init__(self, model: type[surroundings.Thing], page: str) -> None:
        self.model, self.page = model, page

    def facts(self, row: Any) -> Facts:
        return surroundings.facts(row)

    def write(self, row: Any, to: Facts, user: Person, before: Facts | None) -> None:
        members = None
        for name, value in to.items():
            if name == "members":
                members = list(User.objects.filter(username__in=value))
            else:
                setattr(row, name, value)
        if isinstance(row, Hours) and before is not None:
            _stays("hours", before["name"], row.name)
        checked(row)
        surroundings.save(row, user, before, members)


class _Receiver(Row):
    model = Receiver
    page = "receiver"
    made = "Switch it off, or delete it on its page."
    gone = "A deleted receiver's secrets are gone with it: make it anew on its page."

    def facts(self, row: Any) -> Facts:
        return receiver_form.facts(row)

    def plan(self, entry: AuditEntry) -> Plan:
        before, after = dict(entry.before or {}), dict(entry.after or {})
        secrets = entry.action == Action.CHANGED and before.get("secrets") != after.get("secrets")
        if secrets and {k for k in before if before[k] != after.get(k)} == {"secrets"}:
            raise RevertError("Only secrets were changed, and those are kept nowhere else: enter"
                              " the old ones on its page.")  # fmt: skip
        found = super().plan(entry)
        to = {k: v for k, v in found.to.items() if k != "secrets"}
        changes = tuple(c for c in found.changes if c.field != "secrets")
        if not to:
            raise RevertError("It is again as it was before: there is nothing to take back.")
        left = " Its secrets stay as they are now." if secrets else ""
        conflicts = tuple(c for c in found.conflicts if c.change.field != "secrets")
        return Plan(found.does + left, changes, conflicts, found.now, found.page, to)

    def write(self, row: Any, to: Facts, user: Person, before: Facts | None) -> None:
        for name, value in to.items():
            if name == "team":
                value = _named(Team, value)
            elif name == "quiet_hours":
                value = _named(Hours, value)
            if name not in ("secrets", "kind"):
                setattr(row, name, value)
        _stays("receiver", str((before or {}).get("name", "")), row.name)
        checked(row)
        row.save()
        audit.record(user, Action.CHANGED, row, before, self.facts(row))


class _Silence(Row):
    model = Silence
    page = "silence"
    made = "Switch it off on its page."

    def facts(self, row: Any) -> Facts:
        return silences.facts(row)

    def write(self, row: Any, to: Facts, user: Person, before: Facts | None) -> None:
        row.matcher, row.recurrence = to["match"], to["again"]
        row.starts_at = datetime.fromisoformat(to["from"])
        row.ends_at = datetime.fromisoformat(to["to"])
        for name in ("name", "time_zone", "maintenance", "enabled", "comment"):
            setattr(row, name, to[name])
        if before is not None:
            _stays("silence", before["name"], row.name)
        checked(row)
        silences.save(row, user, before)


class _Rule(Kind):
    """A rule: name and team go back at once, its text becomes a draft, on and off stay as they
    are: those are switched from a preview."""

    def plan(self, entry: AuditEntry) -> Plan:
        row = Rule.objects.select_related("live", "team").filter(pk=entry.object_id).first()
        if entry.action == Action.ACTED:
            raise RevertError("What was sent or taken up as a draft can't be taken back.")
        if entry.action == Action.CREATED:
            raise RevertError("It was made by this. Retire it, or discard its draft, on its page.")
        if entry.action == Action.DELETED:
            if row is not None:
                raise RevertError("It is there again.")
            raise RevertError("It was deleted before it ever was live: make a new rule.")
        if row is None:
            raise RevertError("It was discarded since.")
        now = rules.facts(row)
        to, changes, conflicts = differences(entry, now)
        to = {k: v for k, v in to.items() if k in ("name", "team", "spec", "retired")}
        if to.get("spec", _NONE) is None:
            del to["spec"]
        shown = tuple(c for c in changes if _top(c.field) in to)
        if not to:
            raise RevertError("Rules are switched on and off on their page, after a look at what"
                              " that means: go there.")  # fmt: skip
        says = []
        if "spec" in to:
            says.append("Puts the earlier text into the draft, which tells nobody until you have"
                        " seen its preview and made it live.")  # fmt: skip
        if to.keys() & {"name", "team"}:
            says.append("Sets its name and team back.")
        if "retired" in to:
            says.append("Retires it again." if to["retired"] else "Brings it back, switched off.")
        kept = tuple(c for c in conflicts if _top(c.change.field) in to)
        return Plan(" ".join(says), shown, kept, now, ("rule", row.pk), to)

    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None:
        row = Rule.objects.select_related("live", "team").get(pk=entry.object_id)
        to = found.to
        try:
            if to.keys() & {"name", "team"}:
                team = _named(Team, to["team"]) if "team" in to else row.team
                rules.describe(row, to.get("name", row.name), team, user)
            if "retired" in to:
                (rules.retire if to["retired"] else rules.bring_back)(row, user)
            if "spec" in to:
                row.refresh_from_db()
                rules.draft_of(row, RuleSpec.read(to["spec"]), user, entry)
                audit.record(user, Action.ACTED, row, None, {"draft": "an earlier text"})
        except rules.RuleError as error:
            raise RevertError(str(error)) from None
        except SpecError:
            raise RevertError("This text can't be read any more.") from None


class _Model(Kind):
    """A model's state: the champion or challenger of before comes back."""

    def plan(self, entry: AuditEntry) -> Plan:
        row = self._row(entry)
        before, after = dict(entry.before or {}), dict(entry.after or {})
        now = model_store.standing(row)
        role = next((r for r in ("champion", "challenger") if before.get(r) != after.get(r)), "")
        if not role or (role == "challenger" and not before.get("challenger")):
            raise RevertError("It can challenge or be promoted again on its page.")
        if now.get(role) != after.get(role):
            raise RevertError(f"The {role} has changed since: it is {now.get(role) or 'none'} now."
                              " Take the later change back first.")  # fmt: skip
        does = f"Makes {before[role]} the {role} again." if before.get(role) else \
            "Leaves the champion: the other detectors score without a stored model."  # fmt: skip
        changes = tuple(between(entry.kind, {role: now.get(role)}, {role: before.get(role)}))
        return Plan(does, changes, (), now, ("model", row.pk), {role: before.get(role)})

    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None:
        row, actor = self._row(entry), user.get_username()
        (role, version), = found.to.items()  # fmt: skip
        reason = f"takes back {entry.at:%Y-%m-%d %H:%M} UTC"
        try:
            if version is None:
                model_store.roll_back(row.stream, row.metric, row.algorithm, actor=actor,
                                      reason=reason, to_none=True)  # fmt: skip
                return
            line = model_store.line_of(row.stream, row.metric, row.algorithm)
            other = line.filter(version=int(str(version).removeprefix("v"))).first()
            if other is None:
                raise RevertError(f"{version} is not there any more.")
            if role == "champion":
                promotion.promote(other.pk, actor=actor, reason=reason)
            else:
                model_store.challenge(other.pk, actor=actor, reason=reason)
        except DetectionError as error:
            raise RevertError(f"It stays as it was. {error}.") from None

    @staticmethod
    def _row(entry: AuditEntry) -> ModelVersion:
        rows = ModelVersion.objects.select_related("stream").defer("artefact")
        row = rows.filter(pk=entry.object_id).first()
        if row is None:
            raise RevertError("This model is not there any more.")
        return row


class _Weights(Kind):
    """Which learnt weights count for a stream."""

    def plan(self, entry: AuditEntry) -> Plan:
        row = LearntWeights.objects.select_related("stream").filter(pk=entry.object_id).first()
        if row is None:
            raise RevertError("These weights are not there any more.")
        was, then = (dict(f or {}).get("weights_in_use") for f in (entry.before, entry.after))
        used = learnt_weights.in_use(row.stream)
        now = used.pk if used is not None else None
        if now == was:
            raise RevertError("It is again as it was before: there is nothing to take back.")
        if now != then:
            raise RevertError("Other weights count since: take that change back first.")
        whose = f"weights {was}" if was else "the configuration's weights"
        changes = between(entry.kind, {"weights_in_use": now}, {"weights_in_use": was})
        return Plan(f"Lets {whose} count again.", tuple(changes), (), now, None,
                    {"weights_in_use": was})  # fmt: skip

    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None:
        was = found.to["weights_in_use"]
        try:
            if was is None:
                learnt_weights.leave(found.now, user.get_username())
            else:
                learnt_weights.use(was, user.get_username())
        except LearntWeights.DoesNotExist:
            raise RevertError(f"Weights {was} are not there any more.") from None
        except DetectionError as error:
            raise RevertError(f"It stays as it was. {error}.") from None


class _Elsewhere(Kind):
    """Things that are changed elsewhere."""

    def __init__(self, why: str) -> None:
        self._why = why

    def plan(self, entry: AuditEntry) -> Plan:
        raise RevertError(self._why)

    def do(self, entry: AuditEntry, found: Plan, user: Person) -> None:
        raise RevertError(self._why)


_NONE = object()
KINDS: dict[str, Kind] = {
    "alerts.Rule": _Rule(), "alerts.Silence": _Silence(), "alerts.Receiver": _Receiver(),
    "alerts.Hours": _Surrounding(Hours, "hours"), "alerts.Team": _Surrounding(Team, "team"),
    "alerts.Tag": _Surrounding(Tag, ""), "detection.ThresholdPolicy": _Policy(),
    "detection.ModelVersion": _Model(), "detection.LearntWeights": _Weights(),
    "streams.Stream": _Elsewhere(
        "Streams are set in config.yaml: change it there, and start the consumer again."
    ),
    "alerts.InboundSource": _Elsewhere(
        "A source is switched on and off on its page, and a token that was replaced is gone."
    ),
    "alerts.Notification": _Elsewhere("What was sent can't be taken back."),
}  # fmt: skip


def _top(path: str) -> str:
    """The fact that a field of a change belongs to: everything else is of the rule's text."""
    return path if path in ("name", "team", "enabled", "retired", "version") else "spec"


def _named(model: type[Any], name: str | None) -> Any:
    """The row of that name; RevertError where it is gone."""
    if name is None:
        return None
    row = model.objects.filter(name=name).first()
    if row is None:
        raise RevertError(f"{model._meta.verbose_name.capitalize()} {name} is not there any more.")
    return row


def _stays(what: Any, name: str, other: str) -> None:
    if why := rules.keeps_its_name(what, name, other):
        raise RevertError(why)
