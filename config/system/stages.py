"""Why there may be no anomalies: each stage on an event's way, in order, as it really stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from config.schema import VigilConfig
from config.system import reading, scoring, telling
from config.system.world import Check, World

CHECKS: tuple[tuple[str, tuple[Callable[[World], Check], ...]], ...] = (
    ("Events come in", (
        reading.broker_reachable, reading.topic_exists, reading.events_arrive,
        reading.consumer_alive, reading.decodable, reading.mapping_right, reading.not_lagging,
        reading.clocks_right, reading.in_order,
    )),
    ("They are scored", (
        scoring.warmed_up, scoring.room_for_series, scoring.detectors_on,
        scoring.threshold_reachable, scoring.budget_not_hiding, scoring.found_any,
    )),
    ("Somebody hears of it", (
        telling.results_out, telling.rules_tell, telling.not_silenced, telling.live_push,
    )),
)  # fmt: skip


def check_all(config: VigilConfig, now: datetime) -> list[tuple[str, list[Check]]]:
    """Each part of the way with its checks."""
    world = World(config, now)
    return [(part, [check(world) for check in checks]) for part, checks in CHECKS]


def missing(parts: list[tuple[str, list[Check]]]) -> Check | None:
    """What to mend first: the first that is bad, else the first that may hide something."""
    checks = [check for _, found in parts for check in found]
    bad = next((check for check in checks if check.state == "bad"), None)
    return bad or next((check for check in checks if check.state == "warn"), None)
