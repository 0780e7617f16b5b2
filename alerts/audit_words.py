"""Entries of the audit in words: what sort of thing it was, and field by field what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from alerts.rule_form import duration
from alerts.spec import RuleSpec
from streams.models import AuditEntry

KINDS = {
    "alerts.Rule": "rule", "detection.ThresholdPolicy": "threshold policy",
    "alerts.Silence": "silence", "alerts.Receiver": "receiver", "alerts.Team": "team",
    "alerts.Hours": "hours", "alerts.Tag": "tag", "alerts.InboundSource": "Alertmanager source",
    "alerts.Notification": "delivery", "detection.ModelVersion": "model",
    "detection.LearntWeights": "learnt weights", "streams.Stream": "stream",
}  # fmt: skip
"""What there is to change, by the names that entries have for it."""
DOORS = {"page": "on a page", "admin": "in the admin", "api": "by the API",
         "command": "by a command", "system": "by itself"}  # fmt: skip
NAMES = {
    "match.min_severity": "severity from", "match.max_severity": "severity up to",
    "match.rules": "rules", "match.tags": "tags", "when.kind": "what it watches",
    "when.count": "at least", "when.within_s": "within", "when.on": "counted on",
    "when.min_score": "score from", "when.budget_per_day": "budget a day",
    "when.min_duration_s": "lasting at least", "when.share_of_series": "share of series",
    "when.for_s": "for", "when.at_least": "PSI of at least", "when.direction": "direction",
    "group.by": "grouped by", "group.join_s": "joins within", "group.wait_s": "first word waits",
    "group.resolve_after_s": "over after", "group.reopen_within_s": "opens again within",
    "cooldown_s": "cool-down", "remind_s": "reminds every", "at_once_if_worse": "at once if worse",
    "tell_resolved": "tells that it is over", "send": "sends to", "silences": "stays quiet during",
    "enabled": "switched on", "per_minute": "most a minute", "digest_minutes": "digest, minutes",
    "budget_per_day": "budget a day", "again": "comes again", "weekly": "every week",
    "dates": "days off", "holidays": "public holidays of", "max_onsets_per_day": "onsets a day",
    "min_absolute_deviation": "least deviation", "min_relative_deviation": "least share",
    "weights_in_use": "learnt weights in use", "dead_letters": "dead letters",
}  # fmt: skip
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MISSING = object()
LONGEST = 400


@dataclass(frozen=True, slots=True)
class Change:
    """One field. ``before`` or ``after`` is None where the thing was not there."""

    field: str
    name: str
    before: str | None
    after: str | None


def kind_word(kind: str) -> str:
    """What sort of thing an entry is about."""
    return KINDS.get(kind) or kind.rpartition(".")[2]


def changes_of(entry: AuditEntry) -> list[Change]:
    """Field by field; of something new or gone, what it said."""
    return between(entry.kind, entry.before, entry.after)


def between(kind: str, before: Any, after: Any) -> list[Change]:
    """The same of what a thing said before and after; fields that say the same are left out."""
    was, now = _flat(kind, before), _flat(kind, after)
    if kind == "alerts.Rule" and (before is None or after is None):
        plain = _flat(kind, {"spec": {}})
        was = {k: v for k, v in was.items() if plain.get(k, _MISSING) != v}
        now = {k: v for k, v in now.items() if plain.get(k, _MISSING) != v}
    found = []
    for field in dict.fromkeys([*was, *now]):
        old, new = was.get(field, _MISSING), now.get(field, _MISSING)
        if old == new or (before is not None and after is not None and _empty(old) and _empty(new)):
            continue
        if (before is None or after is None) and _empty(new if before is None else old):
            continue
        found.append(Change(field, name_of(field), None if before is None else shown(field, old),
                            None if after is None else shown(field, new)))  # fmt: skip
    return found


def sentence(entry: AuditEntry, most: int = 3) -> str:
    """What was done, in a line."""
    changes = changes_of(entry)
    if entry.action == AuditEntry.Action.CREATED:
        return "made it"
    if entry.action == AuditEntry.Action.DELETED:
        return "deleted it"
    if entry.kind == "alerts.Rule" and (said := _of_rule(entry)):
        return said
    if entry.kind == "detection.ModelVersion":
        return _of_model(entry)
    if entry.kind == "alerts.Receiver" and entry.action == AuditEntry.Action.ACTED:
        return "sent a test"
    if entry.kind == "alerts.Notification":
        return "sent it again"
    parts = [f"{c.name}: {_short(c.before)} → {_short(c.after)}" for c in changes[:most]]
    more = f", and {len(changes) - most} more" if len(changes) > most else ""
    return "; ".join(parts) + more if parts else "acted on it"


def name_of(field: str) -> str:
    """A field for people."""
    if field in NAMES:
        return NAMES[field]
    last = field.removeprefix("match.").removeprefix("when.").removeprefix("group.")
    words = last.removesuffix("_s").replace("_", " ").replace(".", ": ")
    return words


def shown(field: str, value: Any) -> str:
    """A value for people."""
    if value is _MISSING or value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return duration(value) if field.endswith("_s") else f"{value:.10g}"
    if isinstance(value, Mapping):
        return _clipped(", ".join(f"{k}={shown('', v)}" for k, v in value.items()))
    if isinstance(value, list | tuple):
        words = {"send": _step, "weekly": _span}.get(field)
        return _clipped(", ".join(words(v) if words else shown("", v) for v in value))
    return _clipped(_moment(str(value)))


def _flat(kind: str, data: Any) -> dict[str, Any]:
    """{dotted path: value}; a rule's spec with its defaults, so that each field says something."""
    if not isinstance(data, dict):
        return {} if data is None else {"": data}
    found: dict[str, Any] = {}
    # PostgreSQL keeps no order of keys.
    for key, value in sorted(data.items(), key=lambda item: _place(item[0])):
        if key == "spec" and kind == "alerts.Rule":
            found |= _sections(_whole(value))
        elif key in ("match", "settings") and isinstance(value, dict):
            found |= {f"match.{k}" if key == "match" else k: v for k, v in value.items()}
        else:
            found[key] = value
    return found


def _place(key: str) -> tuple[int, str]:
    first = ("name", "version", "enabled", "retired", "team")
    return (first.index(key) if key in first else len(first) + (key == "spec"), key)


def _whole(spec: Any) -> dict[str, Any]:
    try:
        return RuleSpec.read(spec or {}).model_dump(mode="json")
    except ValidationError:
        return dict(spec) if isinstance(spec, dict) else {}


def _sections(spec: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in spec.items():
        if key in ("match", "when", "group") and isinstance(value, dict):
            found |= {f"{key}.{part}": inner for part, inner in value.items()}
        else:
            found[key] = value
    return found


def _of_rule(entry: AuditEntry) -> str:
    before, after = entry.before or {}, entry.after or {}
    if entry.action == AuditEntry.Action.ACTED:
        return "sent a test" if "test" in after else "took an earlier text up as a draft"
    if after.get("retired") and not before.get("retired"):
        return "retired it"
    if before.get("retired") and not after.get("retired"):
        return "brought it back"
    if after.get("version") != before.get("version"):
        count = sum(c.field not in ("version", "enabled") for c in changes_of(entry))
        what = f", {count} field{'s' * (count != 1)} changed" if before.get("version") else ""
        return f"made v{after.get('version')} live{what}"
    if after.get("enabled") != before.get("enabled"):
        return "switched it on" if after.get("enabled") else "switched it off"
    return ""


def _of_model(entry: AuditEntry) -> str:
    before, after = entry.before or {}, entry.after or {}
    if before.get("champion") != after.get("champion"):
        was, now = before.get("champion") or "none", after.get("champion") or "none"
        return f"champion {was} → {now}"
    return f"{before.get('state')} → {after.get('state')}"


def _step(step: Any) -> str:
    if not isinstance(step, Mapping):
        return str(step)
    words = [str(step.get("receiver"))]
    if step.get("min_severity", "low") != "low":
        words.append(f"from {step['min_severity']}")
    if step.get("after_s"):
        words.append(f"after {duration(step['after_s'])}")
    if step.get("hours"):
        words.append(f"{'outside' if step.get('outside') else 'within'} {step['hours']}")
    return words[0] if len(words) == 1 else f"{words[0]} ({', '.join(words[1:])})"


def _span(span: Any) -> str:
    if not isinstance(span, Mapping):
        return str(span)
    return f"{days_in_words(span.get('days', []))} {span.get('from')}–{span.get('to')}"


def days_in_words(days: Any) -> str:
    """``Mon–Fri``, ``Sat, Sun``; "every day" of all seven."""
    there = [d for d in _DAYS if d in days]
    if len(there) == len(_DAYS):
        return "every day"
    first = _DAYS.index(there[0]) if there else 0
    if len(there) > 2 and tuple(there) == _DAYS[first : first + len(there)]:
        return f"{there[0].capitalize()}–{there[-1].capitalize()}"
    return ", ".join(d.capitalize() for d in there)


def _moment(text: str) -> str:
    if len(text) < 19 or text[10:11] != "T":
        return text
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at.tzinfo else text


def _empty(value: Any) -> bool:
    return value is _MISSING or value is None or value in ("", [], {})


def _short(text: str | None) -> str:
    text = "none" if text is None else text
    return text if len(text) <= 60 else f"{text[:59]}…"


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
