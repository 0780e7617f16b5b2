"""Silences as anomalies: the wall clock and the next event leave the same rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.db import transaction

from anomalies.feedback import set_label
from anomalies.models import Anomaly, Outbox
from anomalies.store import AnomalySink
from config.wiring import load_model, scoring_base
from detection.models import QuarantineRelease
from detection.scoring import CompiledVersion, ScoringEngine
from detection.thresholds import Policy
from detection.versions import compile_version
from streams import checkpoint
from streams.batch import EventBatch
from streams.checkpoint import Owned
from streams.clock import from_us
from streams.log_end import Look
from streams.models import Series, Stream
from streams.series import SeriesIndex
from streams.series_store import SeriesStore

START = 1_704_067_200_000_000
S = 1_000_000
LONG = 10**15
DEFAULT = Policy("p", version=3)
# (event time in s, series); the series is 0 or 1
Events = list[tuple[float, int]]
BEATS: Events = [(float(5 * i), 0) for i in range(100)]
LAST_S = 495.0
LIMIT_S = 60.0


class Watch:
    """One consumer's memory of one partition, and the log that it reads."""

    def __init__(self, stream: Stream, owned: Owned, policy: Policy = DEFAULT) -> None:
        self.stream, self.owned = stream, owned
        self.engine = ScoringEngine(SeriesIndex())
        self.engine.attach(0)
        self.now_us = START
        self.sink = AnomalySink(stream, self.engine, lambda: from_us(self.now_us))
        self.version = version(policy)
        self.next = 0

    def read(
        self, events: Events, size: int = 10_000, delay_s: float | None = 0.0, silent: int = 0
    ) -> None:
        """Score and store; those below ``silent`` were stored before."""
        for at in range(0, len(events), size):
            part = events[at : at + size]
            codes = [self.engine.index.code("edge-fra-1", name) for name in ("heartbeat", "load")]
            n = len(part)
            batch = EventBatch(
                np.array([START + round(t * S) for t, _ in part], dtype=np.int64),
                np.array([codes[s] for _, s in part], dtype=np.int32),
                np.full((n, 1), 1.0),
                np.zeros(n, dtype=np.int32),
                np.arange(self.next, self.next + n, dtype=np.int64),
                committable={0: self.next + n},
            )
            self.next += n
            scored = self.engine.process(batch, self.version, {0: silent})
            self.engine.delays.delay[:] = np.nan if delay_s is None else delay_s * S
            self._store([scored], ())

    def look(self, at_s: float, quiet_us: int = LONG) -> None:
        """What the wall clock says at this moment."""
        self.now_us = START + round(at_s * S)
        looks = [Look(0, self.now_us, quiet_us, self.version)]
        self._store([], looks if self.sink.overdue(looks) else ())

    def _store(self, parts: list[Any], looks: Iterable[Look]) -> None:
        SeriesStore().ensure(self.stream, self.engine.index)
        pending = self.sink.build(parts, {0: self.owned}, flush=True, looks=list(looks))
        self.sink.prepare(pending)
        with transaction.atomic():
            self.sink.write(pending)

    def killed(self) -> Watch:
        """Another process that has read the log again in silence."""
        other = Watch(self.stream, self.owned)
        other.version = self.version
        return other


def version(*policies: Policy, **settings_of: Any) -> CompiledVersion:
    payload = {
        **scoring_base(settings.VIGIL), "time_zone": "UTC", "models": [],
        "policies": [p.as_dict() for p in policies],
    } | settings_of  # fmt: skip
    return compile_version(0, payload, load_model)


@pytest.fixture
def watch(transactional_db: None) -> Watch:
    stream = Stream.objects.create(name="raw", topic="raw")
    life = checkpoint.incarnation(stream, "id-1")
    return Watch(stream, checkpoint.acquire(life, 0, "me"))


def rows() -> dict[str, Any]:
    """All of the silences' rows but wall-clock columns."""
    skipped = {"stored_at", "updated_at"}
    names = [f.attname for f in Anomaly._meta.concrete_fields if f.name not in skipped]
    found = {
        "anomalies": sorted(Anomaly.objects.filter(kind="missing").values_list(*names), key=str),
        "outbox": sorted(
            Outbox.objects.filter(anomaly__kind="missing").values_list(
                "anomaly_id", "sequence", "kind", "payload"
            ),
            key=str,
        ),
    }
    Outbox.objects.all().delete()
    Anomaly.objects.all().delete()
    return found


def again(watch: Watch) -> Watch:
    Series.objects.update(last_event_at=None)
    return Watch(watch.stream, watch.owned)


def only() -> Anomaly:
    return Anomaly.objects.get(kind="missing")


def test_the_next_event_tells_the_whole_silence(watch: Watch) -> None:
    watch.read([*BEATS, (LAST_S + 840.0, 0)])
    found = only()
    assert (found.anomaly_type, found.state, found.severity) == ("missing", "closed", 4)
    assert found.explanation == (
        "No event of heartbeat on edge-fra-1 for 14 min; usually one comes every 5 s, and silence"
        " is odd from 60 s on."
    )
    assert found.onset_at == from_us(START + round((LAST_S + LIMIT_S) * S))
    assert found.end_at == from_us(START + round((LAST_S + 840) * S))
    assert (found.value, found.peak_value, found.count, found.offset) == (None, None, 0, 99)
    assert found.score == 0.8
    assert found.peak_score == pytest.approx(1 - 5 ** -(1 + np.log2(14) / 4))
    assert (found.policy, found.detectors, found.late) == ("p v3", {}, False)
    told = list(Outbox.objects.order_by("sequence").values_list("sequence", "kind"))
    assert told == [(0, "onset"), (1, "update"), (2, "update"), (3, "update"), (4, "closed")]
    payload = Outbox.objects.get(sequence=0).payload
    assert payload["value"] is None
    assert payload["silence"]["limit_s"] == 60.0
    assert payload["silence"]["since"] == "2024-01-01T00:08:15Z"
    assert payload["severity"] == "low"
    assert payload["explanation"].startswith("No event of heartbeat on edge-fra-1 for 60 s;")
    series = Series.objects.get(metric="heartbeat")
    assert series.silence_after_s == 60.0
    assert series.usual_gap_s == pytest.approx(5.0, abs=0.3)


def test_both_ways_and_any_cut_leave_the_same_rows(watch: Watch) -> None:
    """By batches of 1 to 10,000, by looks at odd moments in between, and with a process killed."""
    steps: Events = [*BEATS, (LAST_S + 840.0, 0), *[(LAST_S + 845.0 + 5 * i, 0) for i in range(40)]]
    watch.read(steps)
    expected = rows()
    assert len(expected["anomalies"]) == 1
    for size in (1, 7, 1_000, 10_000):
        one = again(watch)
        one.read(steps, size)
        assert rows() == expected
    for moments in ([555.4], [556.0, 700.0], [560.0, 560.1, 900.0, 1_200.0], [1_334.0]):
        one = again(watch)
        one.read(BEATS, 7)
        for at_s in moments:
            one.look(at_s)
            assert only().state == "open"
        killed = one.killed()
        killed.read(BEATS, 1_000, silent=100)
        killed.sink.begin(killed.owned)
        killed.look(moments[-1] + 0.1)
        killed.read(steps[100:])
        assert rows() == expected


def test_the_clock_tells_an_onset_and_its_rises_once(watch: Watch) -> None:
    watch.read(BEATS)
    watch.look(554.9)
    assert not Anomaly.objects.exists()
    watch.look(556.0)
    watch.look(558.0)
    assert only().severity == 1
    watch.look(LAST_S + 60 * 4)
    found = only()
    assert (found.state, found.severity) == ("open", 3)
    kinds = list(Outbox.objects.order_by("sequence").values_list("kind", flat=True))
    assert kinds == ["onset", "update", "update"]
    for later_s in (3_600, 86_400, 864_000):
        watch.look(LAST_S + later_s)
    assert only().severity == 4
    assert Outbox.objects.count() == 4


def test_what_came_late_ends_it_at_once_and_says_so(watch: Watch) -> None:
    watch.read(BEATS)
    watch.look(700.0)
    watch.read([(LAST_S + 5.0, 0), (LAST_S + 10.0, 0)])
    found = only()
    assert (found.state, found.end_at) == ("closed", found.onset_at)
    assert found.explanation.endswith("the series was not silent after all.")
    assert Outbox.objects.get(kind="closed").sequence == 3


def test_an_older_event_ends_no_silence(watch: Watch) -> None:
    watch.read(BEATS)
    watch.look(700.0)
    watch.read([(10.0, 0)])
    assert only().state == "open"


def test_a_source_that_uploads_is_not_silent_in_between(watch: Watch) -> None:
    watch.read(BEATS, delay_s=600.0)
    watch.look(LAST_S + 600.0)
    assert not Anomaly.objects.exists()
    watch.look(LAST_S + 1.25 * (600.0 + 500.0) + 61.0)
    assert only().state == "open"


@pytest.mark.parametrize("delay_s", [None, 86_400.0 * 365])
def test_a_past_that_is_read_in_is_not_judged_by_the_wall_clock(
    watch: Watch, delay_s: float | None
) -> None:
    watch.read(BEATS, delay_s=delay_s)
    watch.look(86_400.0 * 400)
    assert not Anomaly.objects.exists()


def test_nobody_is_silent_while_the_broker_has_answered_for_less_than_the_limit(
    watch: Watch,
) -> None:
    watch.read(BEATS)
    watch.look(700.0, quiet_us=59 * S)
    assert not Anomaly.objects.exists()
    watch.look(700.0, quiet_us=61 * S)
    assert only().state == "open"


def test_a_series_that_another_partition_has_seen_since_is_not_silent(watch: Watch) -> None:
    watch.read(BEATS)
    at = from_us(START + round((LAST_S + 30) * S))
    Series.objects.filter(metric="heartbeat").update(last_event_at=at)
    watch.look(700.0)
    assert not Anomaly.objects.exists()


def test_the_future_of_another_series_changes_nothing(watch: Watch) -> None:
    watch.read([*BEATS, (86_400.0 * 3_650, 1), (LAST_S + 5.0, 0)])
    assert not Anomaly.objects.exists()
    watch.look(LAST_S + 70.0)
    assert only().metric == "heartbeat"


def test_a_policy_gives_the_limit_or_switches_it_off(watch: Watch) -> None:
    watch.version = version(Policy(metric_pattern="heart*", silence_after_s=3.0), DEFAULT)
    watch.read([(0.0, 0), (1.0, 0), (5.0, 1)])
    watch.look(10.0)
    assert only().metric == "heartbeat"  # from the first events on
    watch.version = version(Policy(metric_pattern="heart*", silence_after_s=0.0), DEFAULT)
    watch.look(12.0)
    found = only()
    assert (found.state, found.end_at) == ("closed", from_us(START + 12 * S))
    assert found.explanation.endswith("no longer watched.")
    watch.look(1_000.0)
    watch.read([(2_000.0, 0)])
    assert Anomaly.objects.count() == 1


def test_it_can_be_switched_off_for_all(watch: Watch) -> None:
    watch.version = version(DEFAULT, silence={"enabled": False, "least_s": 60.0})
    watch.read([*BEATS, (LAST_S + 840.0, 0)])
    assert not Anomaly.objects.exists()


def test_a_silence_called_expected_makes_such_a_pause_usual(watch: Watch) -> None:
    watch.read([*BEATS, (LAST_S + 840.0, 0)])
    set_label(only().pk, "expected")
    release = QuarantineRelease.objects.get()
    assert release.pause_s == 840.0
    told = {
        "id": release.pk, "source": "edge-fra-1", "metric": "heartbeat", "values": [],
        "pause_s": release.pause_s, "partition": 0,
    }  # fmt: skip
    watch.version = version(DEFAULT, releases=[told])
    more = [(2_000.0 + 5 * i, 0) for i in range(10)]
    watch.read([*more, (more[-1][0] + 900.0, 0)])
    assert Anomaly.objects.filter(kind="missing").count() == 1
    watch.look(more[-1][0] + 10_000.0)
    assert Anomaly.objects.filter(kind="missing", state="open").count() == 1
