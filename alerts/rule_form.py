"""A rule as a form: fields to a spec and back. What can't be read keeps what was typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from alerts import rules
from alerts.models import Hours, Receiver, Silence
from alerts.problems import Problem, WrongError
from alerts.spec import RuleSpec
from anomalies.models import AnomalyType
from streams.models import Stream

MOST_STEPS = 20
Choices = list[tuple[str, str]]

SEVERITIES: Choices = [("low", "Low and above"), ("medium", "Medium and above"),
                       ("high", "High and above"), ("critical", "Critical only")]  # fmt: skip
STEP_SEVERITIES: Choices = [("low", "all"), ("medium", "medium and above"),
                            ("high", "high and above"), ("critical", "critical only")]  # fmt: skip
ON: Choices = [("series", "one series"), ("source", "one source"), ("stream", "one stream"),
               ("rule", "everything together")]  # fmt: skip
BY: Choices = [("incident", "incident (sources that move together)"), ("source", "source"),
               ("metric", "metric"), ("series", "series"), ("stream", "stream"),
               ("rule", "everything in one")]  # fmt: skip
KINDS: Choices = [("anomaly", "an anomaly matches"), ("no_events", "a series falls silent"),
                  ("drift", "a metric drifts"), ("pipeline", "the pipeline itself")]  # fmt: skip
DIRECTIONS: Choices = [("both", "above or below"), ("up", "above only"), ("down", "below only")]
METRICS: Choices = [("lag", "messages waiting"), ("events_per_s", "events per second"),
                    ("latency_p95_ms", "latency, p95 in ms"), ("dead_letters", "dead letters"),
                    ("consumers", "consumers running")]  # fmt: skip
COMPARE: Choices = [("above", "above"), ("below", "below")]
WITHIN = (30, 60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400)
COOLDOWNS = (0, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)
JOIN = (30, 60, 120, 300, 600, 1_800, 3_600)
WAIT = (0, 10, 30, 60, 120, 300)
RESOLVE = (60, 300, 900, 1_800, 3_600, 7_200, 86_400)
REOPEN = (0, 900, 1_800, 3_600, 14_400, 86_400)
LATER = (0, 300, 600, 900, 1_200, 1_800, 3_600, 7_200)
LASTING = (0, 30, 60, 300, 600, 1_800, 3_600)

TEXTS = ("match.streams", "match.series", "match.types", "match.tags", "match.min_severity",
         "when.kind", "when.count", "when.within_s", "when.on", "when.min_score",
         "when.budget_per_day", "when.direction", "when.min_duration_s", "when.share_of_series",
         "when.for_s", "when.at_least", "when.metric", "when.compare", "when.value", "group.by",
         "group.join_s", "group.wait_s", "group.resolve_after_s", "group.reopen_within_s",
         "cooldown_s", "remind_s")  # fmt: skip
TICKS = ("at_once_if_worse", "tell_resolved")
STEP = ("receiver", "min_severity", "after_s", "hours")


@dataclass(slots=True)
class RuleForm:
    """Values by field as text, steps as rows of them, and what is wrong by field."""

    values: dict[str, str]
    ticks: dict[str, bool]
    steps: list[dict[str, str]]
    silences: list[str]
    errors: dict[str, str] = field(default_factory=dict)
    spec: RuleSpec | None = None

    def text(self, name: str) -> str:
        """What stands in a field."""
        return self.values.get(name, "")


def of_spec(spec: RuleSpec) -> RuleForm:
    """A form that says what the spec says."""
    match = spec.match
    values = {
        "match.streams": ", ".join(match.streams),
        "match.series": f"{', '.join(match.sources) or '*'} / {', '.join(match.metrics) or '*'}",
        "match.types": ", ".join(match.types),
        "match.tags": ", ".join(f"{k}={v}" for k, v in match.tags.items()),
        "match.min_severity": match.min_severity,
    }
    for name in TEXTS:
        if name not in values:
            section, _, part = name.rpartition(".")
            found = getattr(getattr(spec, section) if section else spec, part)
            values[name] = _number(found) if isinstance(found, float | int) else str(found or "")
    steps = [
        {"receiver": s.receiver, "min_severity": s.min_severity, "after_s": _number(s.after_s),
         "hours": f"{'-' if s.outside else '+'}{s.hours}" if s.hours else ""}
        for s in spec.send
    ]  # fmt: skip
    ticks = {name: bool(getattr(spec, name)) for name in TICKS}
    return RuleForm(values, ticks, steps, list(spec.silences), spec=spec)


def of_post(post: QueryDict, before: RuleSpec) -> RuleForm:
    """What was typed, read; ``before`` keeps what the form has no field for."""
    form = RuleForm(
        {name: _clean(post.get(name, "")) for name in TEXTS},
        {name: name in post for name in TICKS},
        _rows(post),
        [_clean(name) for name in post.getlist("silences") if name][:50],
    )
    if post.get("add") == "send" and len(form.steps) < MOST_STEPS:
        form.steps.append(_next_step(form))
    if (drop := post.get("drop", "")).isdecimal() and int(drop) < len(form.steps):
        del form.steps[int(drop)]
    if add := _clean(post.get("silence", "")):
        form.silences = list(dict.fromkeys([*form.silences, add]))
    if drop := _clean(post.get("unsilence", "")):
        form.silences = [name for name in form.silences if name != drop]
    _read(form, before)
    return form


def _read(form: RuleForm, before: RuleSpec) -> None:
    data = _data(form, before)
    try:
        spec = rules.read_spec(data)
        wrong = rules.unknown_names(spec)
        if wrong:
            raise WrongError(wrong)
    except WrongError as error:
        for problem in error.problems:
            form.errors.setdefault(field_of(problem.path), problem.sentence)
        return
    form.spec = None if form.errors else spec


def field_of(path: str) -> str:
    """The field of the form that shows a path's mistake."""
    parts = path.split(".")
    if path.startswith(("match.sources", "match.metrics")):
        return "match.series"
    if parts[0] == "send":
        return f"send.{parts[1]}" if len(parts) > 1 else "send"
    if parts[0] == "silences":
        return "silences"
    short = ".".join(parts[:2])
    if path == "when":
        return "when.budget_per_day"
    return short if short in TEXTS else parts[0] if parts[0] in TEXTS else "form"


def problem_fields(problems: list[Problem]) -> dict[str, str]:
    """Mistakes by field."""
    return {field_of(p.path): p.sentence for p in problems}


def _data(form: RuleForm, before: RuleSpec) -> dict[str, Any]:
    """As a spec is stored: what is empty keeps its default."""
    data: dict[str, Any] = {"match": {}, "when": {}, "group": {}}
    data["match"]["max_severity"] = before.match.max_severity
    for name in TEXTS:
        text = form.text(name)
        section, _, part = name.rpartition(".")
        if name == "match.series":
            sources, metrics = series_of(text)
            data["match"] |= {"sources": sources, "metrics": metrics}
        elif name in ("match.streams", "match.types"):
            data["match"][part] = listed(text)
        elif name == "match.tags":
            tags = tags_of(text)
            if tags is None:
                form.errors["match.tags"] = "Tags are written like team=payments, site=fra-*."
            data["match"]["tags"] = tags or {}
        elif text:
            (data[section] if section else data)[part] = _typed(name, text)
    data |= dict(form.ticks)
    data["send"] = [
        {"receiver": row["receiver"], "min_severity": row["min_severity"] or "low",
         "after_s": row["after_s"] or 0}
        | ({"hours": row["hours"][1:], "outside": row["hours"][0] == "-"} if row["hours"] else {})
        for row in form.steps
    ]  # fmt: skip
    data["silences"] = form.silences
    return data


def _typed(name: str, text: str) -> Any:
    """Numbers as people write them: 0,9 and 1 800 too."""
    if name.endswith(("severity", "kind", "on", "direction", "metric", "compare", "by")):
        return text
    return text.replace("\u202f", "").replace(" ", "").replace(",", ".")


def series_of(text: str) -> tuple[list[str], list[str]]:
    """Patterns of sources and of metrics, of ``checkout-*, payments-gw / *``."""
    sources, slash, metrics = text.partition(" / ")
    if not slash and "/" in text and text.count("/") == 1:
        sources, _, metrics = text.partition("/")
    return listed(sources), listed(metrics)


def listed(text: str) -> list[str]:
    """Parts between commas; ``*`` alone is no condition."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    return [] if found == ["*"] else found


def tags_of(text: str) -> dict[str, str] | None:
    """{key: pattern} of ``team=payments, site=fra-*``; None where it is written otherwise."""
    found = {}
    for part in listed(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            return None
        found[key.strip()] = value.strip()
    return found


def _rows(post: QueryDict) -> list[dict[str, str]]:
    columns = {name: post.getlist(f"send.{name}") for name in STEP}
    rows = []
    for i, receiver in enumerate(columns["receiver"][:MOST_STEPS]):
        row = {"receiver": _clean(receiver)}
        for name in STEP[1:]:
            row[name] = _clean(columns[name][i]) if i < len(columns[name]) else ""
        if row["hours"] and row["hours"][0] not in "+-":
            row["hours"] = f"+{row['hours']}"
        rows.append(row)
    return rows


def _next_step(form: RuleForm) -> dict[str, str]:
    taken = {row["receiver"] for row in form.steps}
    names = Receiver.objects.order_by("name").values_list("name", flat=True)
    unused = next((n for n in names if n not in taken), names.first() or "")
    return {"receiver": unused, "min_severity": "low", "after_s": "0", "hours": ""}


def _clean(text: str) -> str:
    return text.replace("\x00", "").strip()[:2_000]


def _number(value: float) -> str:
    return f"{value:.10g}"


# ---- What there is to choose ---------------------------------------------------------------------
def duration(seconds: float) -> str:
    """60 s, 30 min, 2 h, 1 d."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds and seconds % size == 0 and (size != 60 or seconds >= 120):
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _durations(steps: tuple[int, ...], now: str, zero: str = "") -> Choices:
    found = [(str(s), duration(s)) for s in steps]
    if zero and found[0][0] == "0":
        found[0] = ("0", zero)
    if now and now not in dict(found):
        try:
            found.append((now, duration(float(now))))
        except ValueError:
            found.append((now, now))
    return found


def choices(form: RuleForm) -> dict[str, Any]:
    """What the selects offer, with what stands there now."""
    streams: Choices = [("", "any stream")]
    streams += [
        (s, s) for s in Stream.objects.order_by("name").values_list("name", flat=True)[:200]
    ]
    types: Choices = [("", "any type"), *((v, str(n).lower()) for v, n in AnomalyType.choices)]
    for found, name in ((streams, "match.streams"), (types, "match.types")):
        if form.text(name) not in dict(found):
            found.append((form.text(name), form.text(name)))
    receivers = list(Receiver.objects.order_by("name"))
    hours: Choices = [("", "at any time")]
    for name in Hours.objects.order_by("name").values_list("name", flat=True):
        hours += [(f"+{name}", f"within {name}"), (f"-{name}", f"outside {name}")]
    return {
        "streams": streams, "types": types, "severities": SEVERITIES, "on": ON, "by": BY,
        "kinds": KINDS, "directions": DIRECTIONS, "metrics": METRICS, "compare": COMPARE,
        "within": _durations(WITHIN, form.text("when.within_s")),
        "cooldown": _durations(COOLDOWNS, form.text("cooldown_s"), "none"),
        "join": _durations(JOIN, form.text("group.join_s")),
        "wait": _durations(WAIT, form.text("group.wait_s"), "at once"),
        "resolve": _durations(RESOLVE, form.text("group.resolve_after_s")),
        "reopen": _durations(REOPEN, form.text("group.reopen_within_s"), "never"),
        "remind": _durations(COOLDOWNS, form.text("remind_s"), "never"),
        "lasting": _durations(LASTING, form.text("when.min_duration_s"), "however short"),
        "for": _durations(WITHIN, form.text("when.for_s")),
        "later": [
            ("0", "at once"), *((str(s), f"{duration(s)} unacknowledged") for s in LATER[1:])
        ],
        "step_severities": STEP_SEVERITIES, "hours": hours,
        "receivers": [(r.name, r.name) for r in receivers],
        "receiver_rows": {r.name: r for r in receivers},
        "silences": list(
            Silence.objects.exclude(name__in=form.silences).order_by("name")
            .values_list("name", flat=True).distinct()[:100]
        ),
        "silence_rows": {s.name: s for s in Silence.objects.filter(name__in=form.silences)},
    }  # fmt: skip
