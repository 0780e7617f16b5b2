"""What pages show of a challenger: figures of the two side by side, and where they differ."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Min, Sum

from detection import model_store
from detection.models import Disagreement, ModelVersion, ShadowHour

SAMPLES_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of the table; ``change`` is told in words, ``better`` is None where neither is."""

    name: str
    champion: str
    challenger: str
    change: str = ""
    better: bool | None = None
    differ: int | None = None  # events on which the two do not agree; a page leads to them


def shadow_context(model: ModelVersion) -> dict[str, Any]:
    """For `detection/_shadow.html`: everything of one version's time beside the champion."""
    return beside(model, model_store.champion(model.stream, model.metric, model.algorithm))


def beside(model: ModelVersion, champion: ModelVersion | None) -> dict[str, Any]:
    """The same where the champion is known."""
    total = ShadowHour.objects.filter(challenger=model).aggregate(
        hours=Count("hour", distinct=True),
        first=Min("hour"),
        last=Max("hour"),
        **{
            name: Sum(name, default=0)
            for name in (
                "events", "both", "only_champion", "only_challenger", "champion_onsets",
                "challenger_onsets", "champion_us", "challenger_us",
            )
        },
    )  # fmt: skip
    samples = (
        Disagreement.objects.filter(challenger=model)
        .select_related("series")
        .order_by("-event_at", "-offset")[:SAMPLES_SHOWN]
    )
    rules = settings.VIGIL.anomaly_detection.registry
    differing = int(total["only_champion"]) + int(total["only_challenger"])
    events = int(total["events"])
    return {
        "model": model,
        "champion": champion,
        "events": events,
        "hours": int(total["hours"]),
        "first": total["first"],
        "until": total["last"] and total["last"] + dt.timedelta(hours=1),
        "differing": differing,
        "only_champion": int(total["only_champion"]),
        "only_challenger": int(total["only_challenger"]),
        "onsets_a_day": _a_day(total) if events else None,
        "compared": _compared(total) if events else [],
        "gate": model.gate,
        "needs_hours": rules.shadow_hours,
        "needs_events": rules.shadow_events,
        "ready_share": min(
            1.0,
            int(total["hours"]) / rules.shadow_hours if rules.shadow_hours else 1.0,
            events / rules.shadow_events if rules.shadow_events else 1.0,
        ),
        "samples": samples,
    }


def _compared(total: Mapping[str, Any]) -> list[Compared]:
    events = int(total["events"])
    flagged = [int(total["both"]) + int(total[f"only_{side}"]) for side in _SIDES]
    a_day = _a_day(total)
    cost = [float(total[f"{side}_us"]) / events for side in _SIDES]
    differing = int(total["only_champion"]) + int(total["only_challenger"])
    flagged_by_any = int(total["both"]) + differing
    return [
        _line("Alerts a day", a_day, ".1f"),
        _line("Alerts in all", [int(total[f"{side}_onsets"]) for side in _SIDES], ",d"),
        Compared("Events over the threshold", f"{flagged[0]:,}", f"{flagged[1]:,}"),
        Compared("Agreement on all events", "", _percent(1 - differing / events), differ=differing),
        Compared(
            "Agreement on flagged ones",
            "",
            _percent(int(total["both"]) / flagged_by_any) if flagged_by_any else "none flagged",
        ),
        _line("Time per event", cost, ".2f", " µs", ("slower", "faster")),
    ]


def _a_day(total: Mapping[str, Any]) -> list[float]:
    return [24.0 * int(total[f"{side}_onsets"]) / int(total["hours"]) for side in _SIDES]


_SIDES = ("champion", "challenger")


def _line(
    name: str,
    values: list[Any],
    form: str,
    unit: str = "",
    words: tuple[str, str] = ("more", "fewer"),
) -> Compared:
    """Less is better in every figure that is compared like this."""
    before, after = (f"{value:{form}}" for value in values)
    if before == after:
        return Compared(name, before + unit, after + unit, "the same")
    more = values[1] > values[0]
    change = f"{abs(values[1] - values[0]):{form}}{unit} {words[0] if more else words[1]}"
    return Compared(name, before + unit, after + unit, change, not more)


def _percent(share: float) -> str:
    """Never rounded up to a hundred."""
    text = f"{share * 100:.2f}"
    return "99.99 %" if text == "100.00" and share < 1 else f"{text.rstrip('0').rstrip('.')} %"
