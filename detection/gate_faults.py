"""The gate's test on injected faults: champion and challenger on the very same faulty history.

Faults are put into a stream's own newest events again and again, at other places and of other
sizes, until there are enough that the outcome is no matter of luck. A series' events before the
first fault are scored once; both models score the same rows.
"""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection import challengers, injection, metrics, model_store, paired, wide_injection
from detection.base import FloatArray, IntArray
from detection.errors import DetectionError
from detection.history import read_events
from detection.models import Evaluation, ModelVersion, ScoringVersion
from detection.scoring import CompiledVersion, LoadedModel, ScoredBatch, ScoringEngine
from detection.versions import compile_version
from streams.batch import NARROW, EventBatch
from streams.codec import Codec
from streams.models import Stream
from streams.series import SeriesIndex

KIND_INJECTED = "gate injected"
RULE = 2  # of comparing; what was measured by another one is measured again

HISTORY_EVENTS = 200_000
MOST_SERIES = 20
EVENTS_OF_A_SERIES = (2_000, 6_000)  # fewer say nothing, more are cut to the newest
HEALTHY = 1_000  # events before the first fault: the detectors have warmed up
HELD_OUT = 1_500  # events after the training that make a test of their own
FAULTS = 1_000  # rounds of faults end once there are so many
MOST_EVENTS = 1_000_000  # or so many events were scored
RECALL_TOLERANCE = 0.03  # trainings on equal history differ by so much
FALSE_TOLERANCE = 1.0  # more onsets per 10,000 events than the champion's,
FALSE_SHARE = 0.2  # and so much of the champion's own
GRACE = 20  # events after a fault that may tell of its end
_AT_ONCE = 60_000  # events of one call
_SAME_ALARM = 80  # events between two alarms that are one

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The newest events of a series in order: ``time_us`` int64 [n], ``value`` float64 [n].

    Of wide events ``columns`` names the values, and ``value`` is float64 [n, k].
    """

    source: str
    metric: str
    time_us: IntArray
    value: FloatArray
    columns: tuple[str, ...] = NARROW

    @property
    def wide(self) -> bool:
        """Whether its events hold several values."""
        return self.columns != NARROW

    @property
    def rows(self) -> FloatArray:
        """Its values as they were, float64 [n, k]."""
        return self.value if self.wide else self.value.reshape(-1, 1)

    def with_faults(self, seed: int, start: int) -> tuple[FloatArray, Sequence[injection.Fault]]:
        """Its values [n, k] with faults in them from event ``start`` on, and where those are.

        Raises:
            ValueError: no room for one fault, or nothing that moves.
        """
        salt = zlib.crc32(f"{self.source}\0{self.metric}".encode())
        if self.wide:
            found = wide_injection.inject(self.value, seed=seed + salt, start=start)
            return found.values, found.faults
        narrow = injection.inject(self.value, seed=seed + salt, start=start)
        return narrow.value.reshape(-1, 1), narrow.faults


def of_model(model: ModelVersion, champion: ModelVersion | None) -> Evaluation | None:
    """What was measured of it beside this champion, if anything."""
    rows = Evaluation.objects.filter(
        model=model,
        kind=KIND_INJECTED,
        settings__champion=champion and champion.pk,
        settings__rule=RULE,
    )
    return rows.order_by("-pk").first()


def measure(
    model: ModelVersion, client: Mapping[str, Any], *, seed: int = 0, share: float = 0.5
) -> Evaluation:
    """Put faults into the stream's own newest history and see what either ensemble finds.

    The last events of the series with the most of them; where enough came after the model's
    training, faults are put into those only.

    Raises:
        BrokerError: the broker doesn't answer.
        ArtefactError: a model can't be loaded.
    """
    stream = model.stream
    index = SeriesIndex()
    codec = Codec(index, stream.mapping, stream.naive_time_zone or None)
    batches = read_events(
        client, stream.topic, codec, max_events=HISTORY_EVENTS, share=share, metric=model.metric
    )
    series = _longest(batches, index, model.metric)
    champion = model_store.champion(stream, model.metric, model.algorithm)
    figures = compare(model, series, seed=seed)
    return Evaluation.objects.create(
        model=model,
        stream=stream,
        kind=KIND_INJECTED,
        settings={
            "champion": champion and champion.pk, "rule": RULE, "seed": seed,
            "kinds": _kinds(model),
        },
        metrics=figures,
    )  # fmt: skip


def compare(model: ModelVersion, series: Sequence[History], *, seed: int = 0) -> dict[str, Any]:
    """Figures of the champion's and the challenger's ensemble on these series with faults in them.

    Raises:
        DetectionError: no consumer has ever worked on the stream.
        ArtefactError: a model can't be loaded.
    """
    payload = payload_of_now(model.stream)
    payload["models"] = [
        {"id": m.pk, "algorithm": m.algorithm} for m in model_store.champions(model.stream)
    ]
    payload["challengers"] = [{"id": model.pk, "algorithm": model.algorithm}]
    version = compile_version(0, payload, _load)
    return compare_versions(version, series, _trained_until_us(model), seed)


def compare_versions(
    version: CompiledVersion, series: Sequence[History], trained_until_us: int, seed: int
) -> dict[str, Any]:
    """The same of a version that names both models; pure, and equal for equal arguments."""
    tests = []
    for history in series:
        start = HEALTHY
        later = int(np.searchsorted(history.time_us, trained_until_us, side="right"))
        if len(history.value) - later >= HELD_OUT:
            start = max(start, later)
        test = _Test(history, start, start >= later, seed)
        if len(test.injected(0)[1]):
            tests.append(test)
    rounds = _rounds(tests)
    sides, used = _Sides(), []
    for test in tests:
        said = _seen(version, test, rounds)
        if not said:
            continue
        used.append(test)
        sides.add_quiet(said[0], test.start)
        for turn, seen in enumerate(said[1:]):
            sides.add_faulty(seen, test, test.injected(turn)[1], areas=turn == 0)
    return {
        "series": len(used),
        "held_out": sum(test.held_out for test in used),
        "rounds": rounds,
        **sides.figures(),
    }


def reasons_against(found: Mapping[str, Any]) -> list[str]:
    """What speaks against a challenger in `compare`'s figures, in sentences; nothing: it may go."""
    if not found["series"]:
        return [
            "There is too little history for the test on injected faults: it takes"
            f" {EVENTS_OF_A_SERIES[0]:,} events of a series."
        ]
    reasons = []
    ours, theirs, pair = found["challenger"], found["champion"], found["paired"]
    if pair["least_lost"] > RECALL_TOLERANCE:
        reasons.append(
            f"It finds {ours['recall']:.0%} of {ours['faults']:,} injected faults, the champion"
            f" {theirs['recall']:.0%}: {pair['only_champion']:,} only the champion's ensemble"
            f" found, {pair['only_challenger']:,} only its own. Luck allowed for, it loses at"
            f" least {100 * pair['least_lost']:.1f} points; {100 * RECALL_TOLERANCE:g} are"
            " tolerated."
        )
    quiet = found["quiet"]
    if quiet["chance"] < paired.SURE:
        reasons.append(
            f"In {quiet['events']:,} events of history without injected faults it has"
            f" {quiet['challenger']:,} onsets, the champion {quiet['champion']:,}:"
            f" {quiet['only_challenger']:,} are its alone, {quiet['only_champion']:,} the"
            f" champion's. {quiet['tolerated']:.0f} more are tolerated, and luck hardly explains"
            " the rest."
        )
    return reasons


def payload_of_now(stream: Stream) -> dict[str, Any]:
    """What counts for a stream now: ensemble, policies, limits.

    Raises:
        DetectionError: no consumer has ever worked on the stream.
    """
    row = ScoringVersion.objects.filter(stream=stream).order_by("-pk").first()
    if row is None:
        raise DetectionError(f"no consumer has worked on {stream.name} yet: start one")
    return dict(row.payload)


# -- private -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Test:
    """A series with faults from event ``start`` on."""

    history: History
    start: int
    held_out: bool  # the models learnt from none of these events
    seed: int

    def injected(self, turn: int) -> tuple[FloatArray, IntArray]:
        """Values [n, k] with a round's faults in them, and their places int64 [f, 2], may be none.

        Equal however often it is asked.
        """
        try:
            values, faults = self.history.with_faults(self.seed + 7919 * turn, self.start)
        except ValueError:
            values, faults = self.history.rows, ()
        places = [(fault.start, fault.end) for fault in faults]
        return values, np.array(places, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """What one ensemble said of the events of a series, [n] each; nan: nothing."""

    score: FloatArray
    over: BoolArray
    onset: BoolArray


_Seen = tuple[_Side, _Side]  # champion's ensemble, challenger's


def _rounds(tests: Sequence[_Test]) -> int:
    """How often faults are put into the series: until there are enough, or events enough."""
    faults = sum(len(test.injected(0)[1]) for test in tests)
    events = sum(len(test.history.value) - test.start for test in tests)
    return max(1, min(-(-FAULTS // max(faults, 1)), MOST_EVENTS // max(events, 1)))


def _seen(version: CompiledVersion, test: _Test, rounds: int) -> list[_Seen]:
    """What both say of a series as it was, then of each round; none where neither is asked.

    What comes before the first fault is scored once: each variant goes on from there, as if in a
    partition of its own.
    """
    history, start = test.history, test.start
    engine = ScoringEngine(SeriesIndex(), capacity=1)
    engine.attach(0)
    code = engine.index.code(history.source, history.metric)
    healthy = engine.process(_batch(history, code, 0, start, [history.rows], first=0), version, {})
    if not healthy.shadows:
        return []
    slots = engine.slots_of(0)
    codes, layout, packed = np.array([code], np.int32), engine.layouts(slots)[0], engine.pack(slots)
    found: list[_Seen] = []
    at_once = max(1, _AT_ONCE // (len(history.value) - start))
    for first in range(0, rounds + 1, at_once):
        numbers = range(first, min(first + at_once, rounds + 1))
        for number in numbers:
            engine.attach(number)
            engine.restore(number, codes, layout, packed)
        variants = [test.injected(n - 1)[0] if n else history.rows for n in numbers]
        scored = engine.process(
            _batch(history, code, start, len(history.value), variants, first), version, {}
        )
        found += _by_variant(scored, numbers, len(history.value))
        for number in numbers:
            engine.detach(number)
    return found


def _batch(
    history: History,
    code: int,
    start: int,
    end: int,
    variants: Sequence[FloatArray],
    first: int,
) -> EventBatch:
    """Events start … end − 1 of each variant, in partitions from ``first`` on."""
    n, count = end - start, len(variants)
    return EventBatch(
        np.tile(history.time_us[start:end], count),
        np.full(n * count, code, dtype=np.int32),
        np.concatenate([values[start:end] for values in variants]),
        np.repeat(np.arange(first, first + count, dtype=np.int32), n),
        np.tile(np.arange(start, end, dtype=np.int64), count),
        history.columns,
        dict.fromkeys(range(first, first + count), end),
    )


def _by_variant(scored: ScoredBatch, numbers: Sequence[int], n: int) -> list[_Seen]:
    """Each variant's events by their own numbers; of a vector that learns, some are missing."""
    shadow = scored.shadows[0] if scored.shadows else None
    events = scored.events
    found = []
    for number in numbers:
        sides = []
        for over, onset in (
            (challengers.CHAMPION, challengers.CHAMPION_ONSET),
            (challengers.CHALLENGER, challengers.CHALLENGER_ONSET),
        ):
            side = _Side(np.full(n, np.nan), np.zeros(n, np.bool_), np.zeros(n, np.bool_))
            told = np.flatnonzero(events.partition == number)
            side.score[events.offset[told]] = scored.score[told]
            if shadow is not None:
                mine = np.flatnonzero(events.partition[shadow.at] == number)
                at = events.offset[shadow.at[mine]]
                side.over[at] = shadow.flags[mine] & over > 0
                side.onset[at] = shadow.flags[mine] & onset > 0
                if over == challengers.CHALLENGER:
                    side.score[at] = shadow.score[mine]
            sides.append(side)
        found.append((sides[0], sides[1]))
    return found


@dataclass(slots=True)
class _Sides:
    """Sums over series and rounds."""

    tallies: tuple[metrics.Tally, metrics.Tally] = field(
        default_factory=lambda: (metrics.Tally(grace=GRACE), metrics.Tally(grace=GRACE))
    )
    only: list[tuple[int, int]] = field(default_factory=list)  # found by one alone, of each group
    faults: list[int] = field(default_factory=list)  # in each group
    quiet_events: int = 0
    quiet: list[int] = field(default_factory=lambda: [0, 0])  # onsets
    quiet_only: list[int] = field(default_factory=lambda: [0, 0])

    def add_quiet(self, seen: _Seen, start: int) -> None:
        """The history as it was: alarms that only one of the two has."""
        self.quiet_events += len(seen[0].over) - start
        for mine, (ours, others) in enumerate((seen, seen[::-1])):
            at = np.flatnonzero(ours.onset[start:]) + start
            self.quiet[mine] += len(at)
            self.quiet_only[mine] += int((~_near(others.over, at)).sum())

    def add_faulty(self, seen: _Seen, test: _Test, places: IntArray, *, areas: bool) -> None:
        """One round of faults in one series."""
        times = test.history.time_us / 1e6
        for tally, side in zip(self.tallies, seen, strict=True):
            tally.add(side.score, side.onset, side.over, places, times, HEALTHY, areas=areas)
        champion, challenger = (metrics.delays(side.onset, places) >= 0 for side in seen)
        alone = int((champion & ~challenger).sum()), int((challenger & ~champion).sum())
        self.only.append(alone)
        self.faults.append(len(places))

    def figures(self) -> dict[str, Any]:
        only = np.array(self.only, dtype=np.int64).reshape(-1, 2)
        lost = paired.loss(only[:, 0] - only[:, 1], np.array(self.faults, dtype=np.int64))
        tolerated = FALSE_TOLERANCE * self.quiet_events / 1e4 + FALSE_SHARE * self.quiet[0]
        mine, others = self.quiet_only[1], self.quiet_only[0]
        return {
            "champion": self.tallies[0].figures().as_dict(),
            "challenger": self.tallies[1].figures().as_dict(),
            "paired": {
                "only_champion": int(only[:, 0].sum()),
                "only_challenger": int(only[:, 1].sum()),
                "lost": round(lost.share, 5),
                "least_lost": round(lost.least, 5),
            },
            "quiet": {
                "events": self.quiet_events,
                "champion": self.quiet[0],
                "challenger": self.quiet[1],
                "only_champion": others,
                "only_challenger": mine,
                "tolerated": round(tolerated, 2),
                "chance": round(paired.chance_of_more(mine, others, tolerated), 6),
            },
        }


def _near(over: BoolArray, at: NDArray[np.intp]) -> BoolArray:
    """Whether there is an alarm within an episode's quiet events of each index."""
    far = 1 << 40
    odd = np.concatenate([[-far], np.flatnonzero(over), [far]])
    place = np.searchsorted(odd, at)
    return np.asarray(np.minimum(odd[place] - at, at - odd[place - 1]) <= _SAME_ALARM)


def _longest(batches: Iterable[EventBatch], index: SeriesIndex, metric: str) -> list[History]:
    least, most = EVENTS_OF_A_SERIES
    parts: dict[int, list[tuple[IntArray, FloatArray]]] = {}
    columns: tuple[str, ...] = NARROW
    for batch in batches:
        if len(batch):
            columns = batch.columns
        order = np.argsort(batch.series, kind="stable")
        codes = batch.series[order]
        cuts = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
        for start, end in pairwise(cuts):
            if start == end or metric not in ("", index.names[codes[start]][1]):
                continue
            rows = order[start:end]
            mine = parts.setdefault(int(codes[start]), [])
            values = batch.values[rows]
            mine.append((batch.event_time[rows], values if columns != NARROW else values[:, 0]))
    found = []
    for code, pieces in parts.items():
        time_us, value = (np.concatenate(column) for column in zip(*pieces, strict=True))
        if len(value) >= least:
            source, name = index.names[code]
            found.append(History(source, name, time_us[-most:], value[-most:], columns))
    found.sort(key=lambda h: (-len(h.value), h.source, h.metric))
    return found[:MOST_SERIES]


def _kinds(model: ModelVersion) -> tuple[str, ...]:
    """The faults that it is asked to find."""
    wide = model.manifest.get("space") == "vector"
    return wide_injection.KINDS if wide else injection.KINDS


def _trained_until_us(model: ModelVersion) -> int:
    last = model.manifest.get("last_event")
    return 0 if last is None else round(dt.datetime.fromisoformat(last).timestamp() * 1e6)


def _load(identity: int) -> LoadedModel:
    row, detector = model_store.load(identity)
    return LoadedModel(row.algorithm, row.metric, row.version, row.sha256, detector, row.pk)
