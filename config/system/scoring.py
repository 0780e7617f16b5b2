"""From events to anomalies: warm-up, detectors, thresholds, budgets, and what was found."""

from __future__ import annotations

from datetime import timedelta

from django.urls import reverse

from anomalies.models import Anomaly, Candidate
from config.system.world import FIRST_SCORE, Check, World, lasting


def warmed_up(world: World) -> Check:
    name = "Series are warmed up"
    found = world.series
    if not found["all"]:
        return Check(name, "bad", "No series is known: no event was stored yet.",
                     "Mend the first stage above that is not green.")  # fmt: skip
    if not found["scored"]:
        return Check(
            name, "bad", f"{found['all']:,} series, and none has its first {FIRST_SCORE} events; "
            f"the furthest has {found['most']:,}.", "Wait: scores begin with the "
            f"{FIRST_SCORE}th event of a series.", reverse("series-list"), "Series",
        )  # fmt: skip
    said = f"{found['scored']:,} of {found['all']:,} series have scores, {found['sure']:,} from "
    said += "every online detector."
    if found["scored"] < found["all"] / 2:
        return Check(name, "warn", said, "Wait: the others are still warming up.",
                     reverse("series-list"), "Series")  # fmt: skip
    return Check(name, "ok", said)


def room_for_series(world: World) -> Check:
    name = "Every series has room"
    n = world.rejected.get("limit", 0)
    if n:
        return Check(
            name, "warn", f"{n:,} events of further series were refused: there are more than "
            f"{world.config.consumer.max_series:,}.", "Look for a name that should not be one, or "
            "raise consumer.max_series.", f"{reverse('streams')}?reason=limit#letters",
            "Dead letters",
        )  # fmt: skip
    return Check(name, "ok", f"{world.series['all']:,} of {world.config.consumer.max_series:,}.")


def detectors_on(world: World) -> Check:
    name = "Detectors are on"
    row = world.version
    if row is None:
        return Check(name, "skip", "No consumer has begun to score yet.")
    payload = row.scoring_version.payload
    on = [n for n, options in payload["detectors"].items() if options.get("enabled")]
    weights = payload.get("weights", {})
    heard = [n for n in on if weights.get(n, 1.0) > 0]
    models = len(payload["models"])
    if not heard:
        return Check(
            name, "bad", "No enabled detector has a weight: every score is 0.",
            "Enable one in anomaly_detection.detectors, or mend anomaly_detection.weights.",
            reverse("system") + "#settings", "Settings",
        )  # fmt: skip
    names = ", ".join(n.replace("_", " ") for n in sorted(heard))
    return Check(name, "ok", f"{names}; {models} stored model{'s' * (models != 1)}.")


def threshold_reachable(world: World) -> Check:
    name = "The threshold lets something through"
    row = world.version
    if row is None:
        return Check(name, "skip", "No consumer has begun to score yet.")
    policies = row.scoring_version.payload["policies"]
    usual = world.config.anomaly_detection.threshold
    lowest = min((p["threshold"] for p in policies), default=usual)
    since = world.now - timedelta(days=1)
    near = Candidate.objects.filter(event_at__gte=since).order_by("-score").select_related("series")
    best = near.first()
    closest = f" Closest in 24 h: {best.score:.2f} on {best.series}." if best else ""
    if lowest > 0.95:
        return Check(
            name, "warn", f"The lowest threshold of any policy is {lowest:.2f}.{closest}",
            "Lower it: 0.80 is the detectors’ alarm level.",
            reverse("admin:detection_thresholdpolicy_changelist"), "Policies",
        )  # fmt: skip
    narrow = [
        p for p in policies
        if p.get("min_absolute_deviation") or p.get("min_relative_deviation")
        or p.get("direction", "both") != "both"
    ]  # fmt: skip
    more = f" {len(narrow)} of {len(policies)} policies ask for a least deviation or a direction." \
        if narrow else ""  # fmt: skip
    return Check(name, "ok", f"{len(policies)} polic{'y' if len(policies) == 1 else 'ies'}, the "
                 f"lowest threshold {lowest:.2f}.{more}{closest}")  # fmt: skip


def budget_not_hiding(world: World) -> Check:
    name = "The budget holds little back"
    found = world.series
    if not found["held"]:
        return Check(name, "ok", "Nothing was held back by a limit of anomalies a day.")
    said = f"{found['held']:,} onsets were held back so far; {found['raised']:,} of "
    said += f"{found['all']:,} series have a raised threshold."
    if found["raised"] > found["all"] / 2:
        return Check(
            name, "warn", said, "Raise max_onsets_per_day of the policy; 0 is no limit.",
            reverse("admin:detection_thresholdpolicy_changelist"), "Policies",
        )  # fmt: skip
    return Check(name, "ok", said)


def found_any(world: World) -> Check:
    name = "Something was odd"
    recent = Anomaly.objects.filter(onset_at__gte=world.now - timedelta(days=1)).count()
    if recent:
        return Check(name, "ok", f"{recent:,} anomalies in the last 24 hours.", "",
                     reverse("anomalies"), "Anomalies")  # fmt: skip
    newest = Anomaly.objects.order_by("-onset_at").values_list("onset_at", flat=True).first()
    if newest is None:
        return Check(name, "ok", "Nothing was, so far: if all above is green, this is good news.")
    age = world.now - newest
    ago = f"{lasting(age)} ago" if age > timedelta(0) else "in the future"
    return Check(name, "ok", f"Nothing in the last 24 hours; the newest anomaly was {ago}.", "",
                 reverse("anomalies") + "?range=all", "All anomalies")  # fmt: skip
