"""What was live then: by the clock out of the log of versions, by event time out of offsets."""

from __future__ import annotations

import datetime as dt
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from detection.live_at import as_json, live_at, read_moment
from detection.models import ScoringVersion, VersionLog
from streams.models import Rollup, TopicIncarnation
from tests import builders

pytestmark = pytest.mark.django_db
NOON = dt.datetime(2026, 11, 17, 12, tzinfo=dt.UTC)


def version(number: int, *models: tuple[str, int]) -> ScoringVersion:
    payload: dict[str, Any] = {
        "models": [
            {"id": 10 + v, "algorithm": name, "metric": "", "version": v, "sha256": f"{v}f" * 32}
            for name, v in models
        ],
        "policies": [{"name": f"policy {number}", "version": number, "threshold": 0.8}],
        "detectors": {"online": {"enabled": True}, "zscore": {"enabled": False, "threshold": 3}},
        "combine": "max",
    }
    return ScoringVersion.objects.create(
        stream=builders.stream(), sha256=f"{number:064x}", payload=payload
    )


def logged(life: TopicIncarnation, partition: int, offset: int, of: ScoringVersion, hour: int
           ) -> None:  # fmt: skip
    row = VersionLog.objects.create(
        incarnation=life, partition=partition, from_offset=offset, scoring_version=of
    )
    VersionLog.objects.filter(pk=row.pk).update(created_at=NOON + dt.timedelta(hours=hour))


def life(of: str = "one", hour: int = -48) -> TopicIncarnation:
    row = TopicIncarnation.objects.create(stream=builders.stream(), topic_id=of)
    TopicIncarnation.objects.filter(pk=row.pk).update(first_seen_at=NOON + dt.timedelta(hours=hour))
    return row


@pytest.fixture
def history() -> tuple[ScoringVersion, ScoringVersion]:
    """Two partitions; the second took the new version up an hour after the first."""
    one, two = version(1, ("isolation_forest", 1)), version(2, ("isolation_forest", 2))
    place = life()
    for partition in (0, 1):
        logged(place, partition, 0, one, -24)
    logged(place, 0, 500, two, 0)
    logged(place, 1, 700, two, 1)
    return one, two


Both = tuple[ScoringVersion, ScoringVersion]


@pytest.mark.parametrize(
    ("hour", "said"),
    [
        (-25, []),
        (-24, [(1, [(0, 0), (1, 0)])]),
        (-0.5, [(1, [(0, 0), (1, 0)])]),
        (0.5, [(2, [(0, 500)]), (1, [(1, 0)])]),
        (9, [(2, [(0, 500), (1, 700)])]),
    ],
)
def test_by_the_clock_each_partition_answers_for_itself(
    history: Both, hour: float, said: list[Any]
) -> None:
    found = live_at(NOON + dt.timedelta(hours=hour))
    assert [
        (one.models[0]["version"], [(p.partition, p.from_offset) for p in one.partitions])
        for live in found
        for one in live.versions
    ] == said


def test_a_topic_made_anew_hides_the_log_of_the_old_one(history: Both) -> None:
    three = version(3)
    logged(life("two", hour=5), 0, 0, three, 5)
    (live,) = live_at(NOON + dt.timedelta(hours=6))
    assert [one.version for one in live.versions] == [three]
    (live,) = live_at(NOON + dt.timedelta(hours=4))
    assert [one.version for one in live.versions] == [history[1]]


def segment(minute: dt.datetime, partition: int, offset: int, count: int = 6) -> None:
    Rollup.objects.create(
        series=builders.series(f"s{partition}-{offset}", "cpu"), minute=minute,
        incarnation=TopicIncarnation.objects.get(), partition=partition, first_offset=offset,
        count=count, scored=count, min=0, max=1, mean=0.5, last=1,
    )  # fmt: skip


def test_by_event_time_a_change_amid_a_segment_is_seen(history: Both) -> None:
    segment(NOON, 0, 495, count=6)  # the last one at 500 at the earliest
    (live,) = live_at(NOON, "event")
    assert [one.version for one in live.versions] == list(history)
    Rollup.objects.update(count=5)
    (live,) = live_at(NOON, "event")
    assert [one.version for one in live.versions] == [history[0]]


def test_by_event_time_it_is_what_scored_that_minutes_events_however_late(history: Both) -> None:
    one, two = history
    early = NOON - dt.timedelta(days=3)
    segment(early, 0, 450)
    segment(early, 0, 510)  # read after the change
    segment(early, 1, 694)
    (live,) = live_at(early + dt.timedelta(seconds=42), "event")
    assert [(v.version, [p.partition for p in v.partitions]) for v in live.versions] == [
        (one, [0, 1]), (two, [0]),
    ]  # fmt: skip
    assert [p.events for p in live.versions[0].partitions] == [None, 6]
    assert live_at(early + dt.timedelta(minutes=1), "event") == []
    assert live_at(early) == []


def test_one_stream_and_few_queries(history: Both) -> None:
    assert live_at(NOON, stream="nobody's") == []
    with CaptureQueriesContext(connection) as asked:
        as_json(live_at(NOON + dt.timedelta(hours=2), stream="raw-data"))
    assert len(asked) == 1


def test_json_names_hashes_policies_and_detectors(history: Both) -> None:
    (live,) = as_json(live_at(NOON + dt.timedelta(hours=2)))
    (one,) = live["versions"]
    assert live["stream"] == "raw-data"
    assert one["models"][0] == {
        "id": 12, "algorithm": "isolation_forest", "metric": "", "version": 2,
        "sha256": "2f" * 32,
    }  # fmt: skip
    assert [policy["name"] for policy in one["policies"]] == ["policy 2"]
    assert one["detectors"] == {"online": {}}
    assert one["since"] == "2026-11-17T12:00:00+00:00"


def test_the_command_says_it_in_lines(history: Both) -> None:
    out = StringIO()
    call_command("models", "--at", "2026-11-17T14:00", stdout=out)
    assert "isolation_forest v2 (every metric), id 12, sha256 2f2f" in out.getvalue()
    assert "0 from offset 500, 1 from offset 700" in out.getvalue()
    call_command("models", "--at", "2020-01-01", stdout=out)
    assert "no version was live at 2020-01-01 00:00:00" in out.getvalue()
    with pytest.raises(CommandError, match="'lunch' is no moment"):
        call_command("models", "--at", "lunch")


@pytest.mark.parametrize("text", ["", "lunch", "2024-13-01T00:00", "9" * 40, "0001-01-01T00:00Z"])
def test_what_is_no_moment_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment: write ISO 8601"):
        read_moment(text)


def test_without_a_zone_it_is_utc() -> None:
    assert read_moment("2026-11-17T12:00") == NOON
    assert read_moment(" 2026-11-17 13:00:00+01:00 ") == NOON
