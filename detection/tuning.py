"""The search for a stored model's algorithm, features and settings: what finds most at a fixed
false rate.

Nobody has labelled enough, so faults of known kinds are put into history that no trial trains on
(`detection.injection`), and a trial's worth is the share of them that its model finds, the mean
over the kinds, when its threshold lets through a fixed rate of false onsets on the same history
untouched. Labels count beside it, the more the more there are.

Pure: equal history, seed and number of trials give equal trials, to the bit. Trials are proposed by
a tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter Optimization,
NeurIPS 2011) as optuna has it, in memory and one after the other; the first is what is set now.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna import distributions
from optuna.trial import TrialState

from detection import injection, metrics
from detection.base import FloatArray, IntArray, ScoringInput, SeriesOutput
from detection.detectors.online import OnlineDetector
from detection.episodes import Limits
from detection.errors import DetectionError, NotEnoughData
from detection.features import ALL, FEATURE_NAMES, FEATURE_SETS
from detection.history import Interval
from detection.scoring import TRUSTED_AFTER
from detection.state import StateStore
from detection.training import train
from detection.zone_clock import ZoneClock
from streams.batch import EventBatch
from streams.series import SeriesIndex

BoolArray = NDArray[np.bool_]
Value = str | float | int

MOST_EVENTS = 400_000  # read from the topic, the newest
MOST_SERIES = 20
EVENTS_OF_A_SERIES = (600, 12_000)  # fewer leave no room for faults, of more the newest count
TRAIN_SHARE = 0.6  # of the time, the first part; faults are put into the rest
LEAST_ROWS = 1_000
MOST_ROWS = 50_000  # that a trial trains on
MOST_TRIALS, MOST_SECONDS = 1_000, 86_400.0
FALSE_PER_10000 = 3.0  # onsets on untouched history that every trial's threshold lets through
APART = 120  # untouched events between two faults
LEVELS = 400  # thresholds tried
FULL_WEIGHT = 40  # labels from which on they count as much as faults
# Faults that are put into one copy of a series: all of them would need 4,000 events.
_COPIES = (
    ("spike", "level_shift", "flat_line", "contextual"),
    ("variance", "drift", "pattern"),
    ("recurring_spike",),
)


@dataclass(frozen=True, slots=True)
class Range:
    """Where a parameter is looked for: from ``low`` to ``high``, or one of ``choices``."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = True
    choices: tuple[Value, ...] = ()


_FEATURES = {"features": Range(choices=tuple(FEATURE_SETS))}

RANGES: Mapping[str, Mapping[str, Range]] = {
    "isolation_forest": {
        "n_estimators": Range(25, 300, log=True),
        "max_samples": Range(64, 4_096, log=True),
        **_FEATURES,
    },
    "local_outlier_factor": {
        "n_neighbors": Range(3, 60, log=True),
        "max_reference": Range(200, 3_000, log=True),
        **_FEATURES,
    },
    "one_class_svm": {
        "nu": Range(0.002, 0.4, log=True, whole=False),
        "gamma": Range(choices=("scale", 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
        "max_samples": Range(300, 4_000, log=True),
        **_FEATURES,
    },
}
"""By algorithm. ``contamination`` only scales a model's oddness, which the fixed rate of false
onsets undoes, so it stays as it is set."""

Measured = tuple[float, dict[str, Any]]


class StudyCancelled(DetectionError):  # noqa: N818
    """Somebody asked for the end of the search."""


class TimeUp(DetectionError):  # noqa: N818
    """The budget of time is spent, be it in the middle of a trial."""


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """One series' newest events in order: ``time_us`` int64 [n], ``value`` float64 [n], finite."""

    source: str
    metric: str
    time_us: IntArray
    value: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Onsets that people judged: ``features`` float64 [n, 10], ``real`` bool [n] (else false)."""

    features: FloatArray
    real: BoolArray

    def __len__(self) -> int:
        return len(self.real)


NO_LABELS = Labels(np.zeros((0, len(FEATURE_NAMES))), np.zeros(0, dtype=np.bool_))


@dataclass(frozen=True, slots=True)
class Trial:
    """One model and what it found. ``value`` 0 to 1, None where it could not be trained."""

    number: int
    algorithm: str
    params: Mapping[str, Value]
    value: float | None
    metrics: Mapping[str, Any]
    seconds: float
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Result:
    """All trials, the best of them, and what made the difference (shares that sum to 1 or less)."""

    trials: tuple[Trial, ...]
    best: Trial
    importance: Mapping[str, float]
    stopped: str = ""  # "time" where the budget of seconds ended it

    @property
    def baseline(self) -> Trial:
        """What is set now, on the same objective."""
        return self.trials[0]


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many trials and seconds, whichever ends first.

    Raises:
        ValueError: a sentence that names what is allowed.
    """

    trials: int = 20
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= MOST_TRIALS:
            raise ValueError(f"trials is {self.trials}: from 1 to {MOST_TRIALS:,} are allowed")
        if self.seconds is not None and not 1 <= self.seconds <= MOST_SECONDS:
            raise ValueError(
                f"seconds is {self.seconds:g}: from 1 to {MOST_SECONDS:,.0f} are allowed"
            )


def pasts(batches: Iterable[EventBatch], index: SeriesIndex, metric: str = "") -> list[Past]:
    """The newest events of the series that have most of them, in order of name and bounded.

    A series seen in two partitions counts as its partition with the most events has it.
    """
    least, most = EVENTS_OF_A_SERIES
    parts: dict[tuple[int, int], list[tuple[IntArray, FloatArray]]] = {}
    for batch in batches:
        order = np.lexsort((batch.offset, batch.partition, batch.series))
        codes, places = batch.series[order], batch.partition[order]
        cut = np.flatnonzero((np.diff(codes) != 0) | (np.diff(places) != 0)) + 1
        for start, end in pairwise([0, *cut.tolist(), len(codes)]):
            if start == end or metric not in ("", index.names[codes[start]][1]):
                continue
            rows = order[start:end]
            value = batch.values[rows, 0]
            usable = np.isfinite(value)
            mine = parts.setdefault((int(codes[start]), int(places[start])), [])
            mine.append((batch.event_time[rows][usable], value[usable]))
    found: dict[int, Past] = {}
    for (code, _), pieces in sorted(parts.items()):
        time_us, value = (np.concatenate(column) for column in zip(*pieces, strict=True))
        known = len(found[code].value) if code in found else least - 1
        if len(value) > known:
            found[code] = Past(*index.names[code], time_us[-most:], value[-most:])
    longest = sorted(found.values(), key=lambda p: (-len(p.value), p.source, p.metric))
    return sorted(longest[:MOST_SERIES], key=lambda p: (p.source, p.metric))


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What all trials of a study are measured on: made once, then only read.

    ``rows`` float64 [m, 10] to train on, in order of time. Of the held-out history, all series one
    behind the other: ``normal`` float64 [n, 10] untouched with times of ``normal_us``, ``faulty``
    float64 [q, 10] with faults, whose intervals are ``faults`` int64 [f, 2] of ``kinds`` [f].
    """

    rows: FloatArray
    normal: FloatArray
    normal_us: IntArray
    faulty: FloatArray
    faulty_us: IntArray
    faults: IntArray
    kinds: tuple[str, ...]
    labels: Labels
    series: int
    false_per_10000: float

    @property
    def objective(self) -> str:
        """A sentence for people."""
        said = (
            f"share found of {len(self.faults):,} injected faults, mean over"
            f" {len(set(self.kinds))} kinds, at {self.false_per_10000:g} false onsets in 10,000"
            f" events"
        )
        return said + (f"; {len(self.labels):,} labels count too" if len(self.labels) else "")


def prepare(
    histories: Sequence[Past],
    *,
    seed: int,
    time_zone: str = "UTC",
    exclude: Sequence[Interval] = (),
    labels: Labels = NO_LABELS,
    false_per_10000: float = FALSE_PER_10000,
) -> Ground:
    """Split the history by time, put faults into the later part, and compute all features once.

    Times of ``exclude`` never train, and no onset in them counts as false.

    Raises:
        NotEnoughData: naming what is missing.
    """
    if not histories:
        least = EVENTS_OF_A_SERIES[0]
        raise NotEnoughData(f"no series has the {least:,} events that a search needs")
    border = int(np.quantile(np.concatenate([p.time_us for p in histories]), TRAIN_SHARE))
    zone = ZoneClock(time_zone)
    rows, rows_us, normal, faulty = [], [], _Stretch(), _Stretch()
    kinds: list[str] = []
    for past in histories:
        left_out = _left_out(past, exclude)
        features, trusted = _features(past, past.value, zone)
        first = int(np.searchsorted(past.time_us, border, side="right"))
        early = trusted & ~left_out & (np.arange(len(trusted)) < first)
        rows.append(features[early])
        rows_us.append(past.time_us[early])
        first = max(first, TRUSTED_AFTER)
        late = ~left_out[first:]
        normal.add(features[first:][late], past.time_us[first:][late])
        salt = zlib.crc32(f"{past.source}\0{past.metric}".encode())
        for number, wanted in enumerate(_COPIES):
            try:
                made = injection.inject(
                    past.value, seed=seed + salt + number, kinds=wanted, start=first, apart=APART
                )
            except ValueError:
                continue  # no room for one fault
            if not made.faults:
                continue
            changed, _ = _features(past, made.value, zone)
            intervals = np.array([(f.start - first, f.end - first) for f in made.faults])
            faulty.add(changed[first:], past.time_us[first:], intervals)
            kinds += [fault.kind for fault in made.faults]
    early_us = np.concatenate(rows_us)
    order = np.argsort(early_us, kind="stable")
    given = np.ascontiguousarray(np.concatenate(rows)[order])
    if len(given) < LEAST_ROWS:
        raise NotEnoughData(
            f"{LEAST_ROWS - len(given):,} more rows to train on are needed: the first"
            f" {TRAIN_SHARE:.0%} of the time of {len(histories)} series give {len(given):,}"
        )
    if not kinds:
        raise NotEnoughData(
            f"the last {1 - TRAIN_SHARE:.0%} of the time of no series has room for one fault with"
            f" {APART} events around it"
        )
    return Ground(
        rows=given,
        normal=normal.features,
        normal_us=normal.time_us,
        faulty=faulty.features,
        faulty_us=faulty.time_us,
        faults=faulty.intervals,
        kinds=tuple(kinds),
        labels=labels,
        series=len(histories),
        false_per_10000=false_per_10000,
    )


def measure(ground: Ground, algorithm: str, params: Mapping[str, Any], *, seed: int) -> Measured:
    """(value, figures) of a model with these settings, trained and tested on the ground.

    Raises:
        NotEnoughData, UnknownDetector, ValueError: it can't be trained so.
    """
    trained = train(algorithm, ground.rows, seed=seed, most_rows=MOST_ROWS, params=params)
    oddness = trained.detector.oddness
    normal = oddness(ground.normal)
    allowed = ground.false_per_10000 * len(normal) / 1e4
    threshold, false_onsets = threshold_at(normal, ground.normal_us, allowed)
    opened = np.zeros(len(ground.faulty), dtype=np.bool_)
    opened[_onsets(oddness(ground.faulty) >= threshold, ground.faulty_us)] = True
    found = metrics.delays(opened, ground.faults) >= 0
    kinds = np.array(ground.kinds)
    recall = {str(kind): float(found[kinds == kind].mean()) for kind in np.unique(kinds)}
    injected = float(np.mean(list(recall.values())))
    figures: dict[str, Any] = {
        "injected": injected,
        "recall": recall,
        "threshold": threshold,
        "false_onsets_per_10000": 1e4 * false_onsets / len(normal),
        "sha256": trained.sha256,
    }
    if not len(ground.labels):
        return injected, figures
    flagged = oddness(ground.labels.features) >= threshold
    right = flagged == ground.labels.real
    sides = [float(right[side].mean()) for side in (ground.labels.real, ~ground.labels.real)
             if side.any()]  # fmt: skip
    labelled = float(np.mean(sides))
    weight = 0.5 * min(1.0, len(ground.labels) / FULL_WEIGHT)
    figures |= {"labelled": labelled, "labels": len(ground.labels), "label_weight": weight}
    return (1 - weight) * injected + weight * labelled, figures


def threshold_at(score: FloatArray, time_us: IntArray, allowed: float) -> tuple[float, int]:
    """(the lowest threshold with at most ``allowed`` onsets from it upwards, its onsets).

    Over the scores float64 [n] themselves, denser at the top: 400 ranks in a geometric row. Where
    even the highest score opens more, just above it.
    """
    falling = np.sort(score)[::-1]
    ranks = np.unique(np.geomspace(1, len(falling), LEVELS).astype(np.int64)) - 1
    best, opened = float(np.nextafter(falling[0], np.inf)), 0
    for level in np.unique(falling[ranks])[::-1].tolist():
        count = len(_onsets(score >= level, time_us))
        if count > allowed:
            break
        best, opened = float(level), count
    return best, opened


def search(
    ground: Ground,
    budget: Budget,
    *,
    seed: int,
    algorithms: Sequence[str] = tuple(RANGES),
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    told: Callable[[Trial], None] = lambda trial: None,
    cancelled: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    measured: Callable[[str, Mapping[str, Any]], Measured] | None = None,
) -> Result:
    """Try settings until the budget is spent; ``told`` hears each trial as it ends.

    Trial 0 is the first algorithm with its ``defaults``, and the next ones are those of the others.
    What defaults say of other parameters (contamination) goes into every trial. ``measured`` does
    what `measure` does, elsewhere, and may raise TimeUp or StudyCancelled in the middle of a trial;
    a trial that is cut short counts as never begun.

    Raises:
        StudyCancelled: between two trials, when ``cancelled`` says so, or by ``measured``.
        NotEnoughData: no trial could be trained.
        TimeUp: the budget of seconds was spent before one had ended.
        ValueError: an algorithm that has no ranges.
    """
    _check(algorithms)
    given = {name: dict((defaults or {}).get(name, {})) for name in algorithms}
    measured = measured or (lambda name, params: measure(ground, name, params, seed=seed))
    quiet = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            direction="maximize",
            # one parameter at a time: an algorithm's own don't exist in the others' trials
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=8, multivariate=False
            ),
        )  # fmt: skip
        trials: list[Trial] = []
        until = None if budget.seconds is None else clock() + budget.seconds
        while len(trials) < budget.trials:
            if cancelled():
                raise StudyCancelled(after(len(trials)))
            if until is not None and clock() >= until:
                break
            number = len(trials)
            preset = algorithms[number] if number < len(algorithms) else ""
            try:
                trials.append(_trial(study, number, preset, algorithms, given, measured, clock))
            except TimeUp:
                break
            except StudyCancelled:
                raise StudyCancelled(after(len(trials))) from None
            told(trials[-1])
        if not trials:
            raise TimeUp("the time was up before the first trial had ended: give the study more")
        rated = [t for t in trials if t.value is not None]
        if not rated:
            raise NotEnoughData(f"no trial could be trained: {trials[0].reason}")
        best = max(rated, key=lambda t: (t.value or 0.0, -t.number))
        stopped = "time" if len(trials) < budget.trials else ""
        return Result(tuple(trials), best, importance(rated, seed=seed), stopped)
    finally:
        optuna.logging.set_verbosity(quiet)


def importance(trials: Sequence[Trial], *, seed: int) -> dict[str, float]:
    """What part of the variance of the trials' values each choice explains, largest first.

    The algorithm's part is exact: between groups over all (η²). The rest lies within algorithms; it
    is shared among an algorithm's parameters as fANOVA does (Hutter et al., ICML 2014; optuna's,
    seeded) where it has at least 4 trials, else it stays untold.
    """
    values = np.array([t.value for t in trials], dtype=np.float64)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if total <= 1e-12:
        return {}
    shares: dict[str, float] = {}
    names = np.array([t.algorithm for t in trials])
    within = 0.0
    for name in np.unique(names).tolist():
        mine = [t for t in trials if t.algorithm == name]
        own = values[names == name]
        spread = float(((own - own.mean()) ** 2).sum())
        within += spread
        if len(mine) < 4 or spread <= 1e-12:
            continue
        study = optuna.create_study(direction="maximize")
        for trial in mine:
            study.add_trial(
                optuna.trial.create_trial(
                    params={p: trial.params[p] for p in RANGES[name]},
                    distributions={p: _distribution(r) for p, r in RANGES[name].items()},
                    value=trial.value,
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        parts = optuna.importance.get_param_importances(study, evaluator=evaluator)
        for parameter, part in parts.items():
            shares[f"{name}.{parameter}"] = float(part) * spread / total
    if len(np.unique(names)) > 1:
        shares["algorithm"] = max(0.0, 1.0 - within / total)
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def after(trials: int) -> str:
    """When somebody's wish was heard."""
    return f"cancelled after {trials} trial{'s' * (trials != 1)}"


# -- private -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stretch:
    """Series one behind the other, with a gap between two that ends any episode."""

    parts: list[FloatArray] = field(default_factory=list)
    times: list[IntArray] = field(default_factory=list)
    places: list[IntArray] = field(default_factory=list)
    rows: int = 0
    until_us: int = 0

    def add(
        self, features: FloatArray, time_us: IntArray, intervals: IntArray | None = None
    ) -> None:
        if not len(features):
            return
        ordered = np.maximum.accumulate(time_us)
        shifted = ordered - ordered[0] + self.until_us
        self.parts.append(features)
        self.times.append(shifted)
        if intervals is not None:
            self.places.append(intervals.astype(np.int64) + self.rows)
        self.rows += len(features)
        self.until_us = int(shifted[-1]) + 2 * Limits().max_gap_us

    @property
    def features(self) -> FloatArray:
        return np.ascontiguousarray(np.concatenate(self.parts or [np.zeros((0, 10))]))

    @property
    def time_us(self) -> IntArray:
        return np.concatenate(self.times or [np.zeros(0, dtype=np.int64)])

    @property
    def intervals(self) -> IntArray:
        return np.concatenate(self.places or [np.zeros((0, 2), dtype=np.int64)])


def _features(past: Past, value: FloatArray, zone: ZoneClock) -> tuple[FloatArray, BoolArray]:
    """(features [n, 10], no longer warming up [n]) of one series as live scoring has them."""
    detector = OnlineDetector()
    store = StateStore([detector.component])
    slot = np.full(len(value), int(store.allocate(1)[0]), dtype=np.int64)
    out = SeriesOutput.empty(len(value))
    inputs = ScoringInput(slot, zone.local_s(past.time_us), np.ascontiguousarray(value))
    detector.score(store.rows(detector.component.name), inputs, out)
    return out.features, (out.seen >= TRUSTED_AFTER) & np.isfinite(out.features).all(axis=1)


def _left_out(past: Past, exclude: Sequence[Interval]) -> BoolArray:
    out = np.zeros(len(past.time_us), dtype=np.bool_)
    for interval in exclude:
        if (interval.source, interval.metric) == (past.source, past.metric):
            out |= (past.time_us >= interval.start_us) & (past.time_us <= interval.end_us)
    return out


def _onsets(over: BoolArray, time_us: IntArray) -> IntArray:
    limits = Limits()
    return metrics.onsets(over, time_us, limits.quiet_events, limits.max_gap_us)


def _trial(
    study: optuna.Study,
    number: int,
    preset: str,
    algorithms: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]],
    measured: Callable[[str, Mapping[str, Any]], Measured],
    clock: Callable[[], float],
) -> Trial:
    if preset:
        study.enqueue_trial({"algorithm": preset, **_preset(preset, defaults[preset])})
    asked = study.ask()
    algorithm = str(asked.suggest_categorical("algorithm", list(algorithms)))
    chosen = {
        name: _suggested(asked, f"{algorithm}.{name}", where)
        for name, where in RANGES[algorithm].items()
    }
    began = clock()
    try:
        value, figures = measured(algorithm, {**defaults[algorithm], **chosen})
    except (TimeUp, StudyCancelled):
        raise
    except (DetectionError, ValueError) as error:
        study.tell(asked, state=TrialState.FAIL)
        return Trial(number, algorithm, chosen, None, {}, clock() - began, str(error))
    study.tell(asked, value)
    return Trial(number, algorithm, chosen, value, figures, clock() - began)


def _preset(algorithm: str, defaults: Mapping[str, Any]) -> dict[str, Value]:
    """The defaults that lie within the ranges; the nearest end where one does not."""
    found: dict[str, Value] = {}
    for name, where in RANGES[algorithm].items():
        value = defaults.get(name, _DEFAULTS[algorithm].get(name, ALL))
        if where.choices:
            value = value if value in where.choices else where.choices[0]
        else:
            value = min(max(value, where.low), where.high)
            value = int(value) if where.whole else float(value)
        found[f"{algorithm}.{name}"] = value
    return found


# As the detectors' own `fit` has them; a test compares.
_DEFAULTS: Mapping[str, Mapping[str, Value]] = {
    "isolation_forest": {"n_estimators": 100, "max_samples": 256},
    "local_outlier_factor": {"n_neighbors": 20, "max_reference": 1_000},
    "one_class_svm": {"nu": 0.05, "gamma": "scale", "max_samples": 3_000},
}


def _suggested(asked: optuna.Trial, name: str, where: Range) -> Value:
    if where.choices:
        return cast(Value, asked.suggest_categorical(name, where.choices))
    if where.whole:
        return asked.suggest_int(name, int(where.low), int(where.high), log=where.log)
    return asked.suggest_float(name, where.low, where.high, log=where.log)


def _distribution(where: Range) -> optuna.distributions.BaseDistribution:
    if where.choices:
        return distributions.CategoricalDistribution(where.choices)
    if where.whole:
        return distributions.IntDistribution(int(where.low), int(where.high), log=where.log)
    return distributions.FloatDistribution(where.low, where.high, log=where.log)


def _check(algorithms: Sequence[str]) -> None:
    unknown = [name for name in algorithms if name not in RANGES]
    if unknown or not algorithms:
        raise ValueError(
            f"algorithm {unknown[0] if unknown else ''!r} is none of {', '.join(RANGES)}"
        )
