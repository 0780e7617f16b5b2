"""One study from the topic's history to a candidate, recorded trial by trial in its `Study`.

It holds training's lease, since both want the same core. A budget of time is for all of it: what
reading took tells how much is kept back for training the best.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction

from detection import gate, training_queue, training_run, tuning
from detection.errors import DetectionError
from detection.features import FEATURE_NAMES
from detection.history import MAX_EVENTS, left_out, read_events
from detection.models import Study, TrainingRun
from detection.training_orders import params_of
from detection.training_run import Order
from detection.trial_process import TrialProcess
from detection.tuning import Budget, Ground, Labels, Result, StudyCancelled, TimeUp, Trial
from streams.codec import Codec
from streams.connectors.topic import event_counts
from streams.errors import StreamsError
from streams.models import Series, Stream
from streams.series import SeriesIndex
from streams.vectors import is_vector

Status = Study.Status
BEAT_S = 1.0
KEPT_BACK_S = 5.0  # for the fit of the best and its process
MOST_KEPT_BACK = 0.5  # of the budget
SLACK = 1.5  # reading again may take so much longer
TIME_UP = "the time was up"


class StudyRefused(ValueError):  # noqa: N818
    """What was asked for can't be searched; a sentence that names what is allowed."""


def ordered(
    stream: str | None,
    metric: str = "",
    *,
    trials: int = 20,
    seconds: float | None = None,
    seed: int = 0,
    requested_by: int | None = None,
) -> Study:
    """A new study that waits; the same one while an equal one does.

    Raises:
        StudyRefused: an unknown stream or metric, or a budget or seed out of bounds.
    """
    try:
        budget = Budget(trials, seconds)
    except ValueError as error:
        raise StudyRefused(f"{error}.") from error
    if not 0 <= seed < 2**32:
        raise StudyRefused(f"seed is {seed}: from 0 to {2**32 - 1} are allowed.")
    row = _stream(stream)
    _check_metric(row, metric)
    config = settings.VIGIL
    search = {
        "algorithms": list(tuning.RANGES),
        "defaults": {name: params_of(config, name) for name in tuning.RANGES},
        "false_per_10000": tuning.FALSE_PER_10000,
        "ranges": {
            name: {
                key: list(r.choices) if r.choices else [r.low, r.high] for key, r in ranges.items()
            }
            for name, ranges in tuning.RANGES.items()
        },
    }
    asked = {
        "stream": row, "metric": metric, "seed": seed, "max_trials": budget.trials,
        "max_seconds": budget.seconds,
    }  # fmt: skip
    with transaction.atomic():
        Stream.objects.select_for_update().get(pk=row.pk)
        waiting = Study.objects.filter(status=Status.QUEUED, **asked).first()
        return waiting or Study.objects.create(
            **asked, search=search, requested_by_id=requested_by, status=Status.QUEUED
        )


def run(
    identity: int,
    client: Mapping[str, Any],
    *,
    share: float = 0.5,
    told: Callable[[Trial], None] = lambda trial: None,
) -> Study:
    """Search, then train and store the best as a candidate; call it with the lease held.

    What goes wrong is told in the study's row: too little history, a wish to end, a broker that
    doesn't answer. Anything else is recorded and raised. A study that has begun already stays as
    it is.

    Raises:
        Study.DoesNotExist: no such study.
    """
    now = dt.datetime.now(dt.UTC)
    claimed = Study.objects.filter(pk=identity, status=Status.QUEUED).update(
        status=Status.RUNNING, heartbeat_at=now, started_at=now
    )
    study = Study.objects.select_related("stream").get(pk=identity)
    if not claimed:
        return study
    watch = _Watch(study)
    try:
        ground = _ground(study, client, share, watch)
        Study.objects.filter(pk=study.pk).update(objective=ground.objective[:200])
        rest = _kept_back(study, client, watch)
        result = _search(study, ground, told, watch, rest)
        _keep(study, result)
        _train(study, result, client, share, watch, rest)
    except _Lost:
        pass
    except StudyCancelled as error:
        _end(study, Status.CANCELLED, str(error))
    except TimeUp as error:
        minutes = _minutes(study.max_seconds or 0.0)
        _end(study, Status.FAILED, f"{error or TIME_UP} than {minutes}")
    except (DetectionError, StreamsError, ValueError) as error:
        _end(study, Status.FAILED, str(error))
    except BaseException as error:
        _end(study, Status.FAILED, f"{type(error).__name__}: {error}")
        raise
    study.refresh_from_db()
    return study


def digest(study: Study, trials: Sequence[Mapping[str, Any]]) -> str:
    """Names a study by what it did, not by its number: equal searches have equal names."""
    said = {
        "search": study.search,
        "seed": study.seed,
        "trials": [[t["algorithm"], t["params"], t["value"]] for t in trials],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def by_importance(study: Study) -> list[tuple[str, float]]:
    """What mattered, the most first; the database keeps no order."""
    return sorted(study.importance.items(), key=lambda item: (-item[1], item[0]))


# -- private -------------------------------------------------------------------------------------


class _Lost(DetectionError):  # noqa: N818
    """The study was given up by others meanwhile."""


class _Watch:
    """Says each second that the study lives, and hears then of its end."""

    def __init__(self, study: Study, clock: Callable[[], float] = time.monotonic) -> None:
        self._study, self._clock = study, clock
        self.began = self._next = clock()
        self.until = None if study.max_seconds is None else self.began + study.max_seconds

    @property
    def spent(self) -> float:
        """Seconds since the study began."""
        return self._clock() - self.began

    def left(self, keeping: float = 0.0) -> float | None:
        """Seconds until its time is up but for those to keep; None without a budget."""
        return None if self.until is None else self.until - keeping - self._clock()

    def __call__(self, keeping: float = 0.0) -> None:
        """Look at the clock, and once a second at the study's row.

        Raises:
            TimeUp, StudyCancelled, _Lost: it has to end.
        """
        left = self.left(keeping)
        if left is not None and left <= 0:
            raise TimeUp("the time was up before the first trial had ended: give the study more")
        now = self._clock()
        if now < self._next:
            return
        self._next = now + BEAT_S
        mine = Study.objects.filter(pk=self._study.pk, status=Status.RUNNING)
        if not mine.update(heartbeat_at=dt.datetime.now(dt.UTC)):
            raise _Lost(f"study {self._study.pk} was given up meanwhile")
        if mine.filter(cancel_requested=True).exists():
            raise StudyCancelled("cancelled before the first trial")

    def reason(self) -> str:
        """The same as a word for a training: why it should end, or nothing."""
        self._next = self._clock()
        try:
            self()
        except TimeUp:
            return TIME_UP
        except StudyCancelled:
            return "cancelled"
        except _Lost as error:
            return str(error)
        return ""


@dataclass(slots=True)
class _Rest:
    """What is kept back for training the best: seconds to read so many events, and to fit.

    The first trial takes longest, since its process starts with it, and so will the fit's.
    """

    most: float = 0.0
    reading: float = 0.0
    events: int = MAX_EVENTS
    fitting: float = KEPT_BACK_S

    @property
    def seconds(self) -> float:
        return min(self.reading + self.fitting, self.most)

    def seen(self, trial: Trial) -> None:
        """A fit takes as long as a trial did."""
        self.fitting = max(self.fitting, SLACK * trial.seconds)


def _kept_back(study: Study, client: Mapping[str, Any], watch: _Watch) -> _Rest:
    """By what reading took: the training reads all, the search but the newest."""
    if study.max_seconds is None:
        return _Rest()
    there = sum(event_counts(client, study.stream.topic).values())
    every, read = min(there, MAX_EVENTS), max(1, min(there, tuning.MOST_EVENTS))
    each = SLACK * watch.spent / read
    most = MOST_KEPT_BACK * study.max_seconds
    events = max(read, int(max(most - KEPT_BACK_S, most / 2) / each))
    return _Rest(most, each * min(every, events), events if events < every else MAX_EVENTS)


def _minutes(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


def _ground(study: Study, client: Mapping[str, Any], share: float, watch: _Watch) -> Ground:
    stream = study.stream
    index = SeriesIndex()
    events = read_events(
        client,
        stream.topic,
        Codec(index, stream.mapping, stream.naive_time_zone or None),
        max_events=tuning.MOST_EVENTS,
        share=share,
        metric=study.metric,
        told=lambda done: watch(),
    )
    return tuning.prepare(
        tuning.pasts(events, index, study.metric),
        seed=study.seed,
        time_zone=stream.time_zone,
        exclude=left_out(stream.name),
        labels=_labels(study),
        false_per_10000=float(study.search["false_per_10000"]),
    )


def _labels(study: Study) -> Labels:
    """Newest labelled onsets that hold all features, in an order of their own."""
    days = settings.VIGIL.anomaly_detection.registry.labels_days
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    rows = [
        (tuple(row.features[name] for name in FEATURE_NAMES), row.real)
        for row in gate.labels_of(study.stream.name, since)
        if study.metric in ("", row.metric) and set(row.features) >= set(FEATURE_NAMES)
    ]
    rows = sorted(row for row in rows if np.isfinite(row[0]).all())
    if not rows:
        return tuning.NO_LABELS
    return Labels(
        np.array([features for features, _ in rows], dtype=np.float64),
        np.array([real for _, real in rows], dtype=np.bool_),
    )


def _search(
    study: Study, ground: Ground, told: Callable[[Trial], None], watch: _Watch, rest: _Rest
) -> Result:
    trials: list[dict[str, Any]] = []

    def keep(trial: Trial) -> None:
        trials.append(trial.as_dict())
        alive = Study.objects.filter(pk=study.pk, status=Status.RUNNING).update(
            trials=trials, heartbeat_at=dt.datetime.now(dt.UTC)
        )
        if not alive:
            raise _Lost(f"study {study.pk} was given up meanwhile")
        rest.seen(trial)
        told(trial)

    watch(rest.seconds)
    left = watch.left(rest.seconds)
    with TrialProcess(ground, study.seed, lambda: watch(rest.seconds)) as measured:
        return tuning.search(
            ground,
            Budget(study.max_trials or 20, None if left is None else max(1.0, left)),
            seed=study.seed,
            algorithms=study.search["algorithms"],
            defaults=study.search["defaults"],
            told=keep,
            cancelled=lambda: _cancelled(study),
            measured=measured,
        )


def _cancelled(study: Study) -> bool:
    return Study.objects.filter(pk=study.pk, cancel_requested=True).exists()


def _keep(study: Study, result: Result) -> None:
    best = result.best.as_dict()
    study.trials = [trial.as_dict() for trial in result.trials]
    study.best = best | {"digest": digest(study, study.trials), "stopped": result.stopped}
    study.importance = dict(result.importance)
    study.save(update_fields=["trials", "best", "importance"])


def _train(
    study: Study,
    result: Result,
    client: Mapping[str, Any],
    share: float,
    watch: _Watch,
    rest: _Rest,
) -> None:
    """The best settings on all of the history, and the end of the study."""
    if _cancelled(study):
        raise StudyCancelled(tuning.after(len(result.trials)))
    best = result.best
    order = Order(
        stream=study.stream,
        algorithm=best.algorithm,
        metric=study.metric,
        promote="never",
        seed=study.seed,
        params={**study.search["defaults"][best.algorithm], **best.params},
        share=share,
        max_events=rest.events,
        study={
            "digest": study.best["digest"], "seed": study.seed, "trials": len(result.trials),
            "value": best.value,
        },
    )  # fmt: skip
    outcome = training_run.run(order, client, trigger=TrainingRun.Trigger.TUNING, stop=watch.reason)
    Study.objects.filter(pk=study.pk).update(run=outcome.run, model=outcome.model)
    if outcome.model is None and _cancelled(study):
        raise StudyCancelled(f"cancelled while the best of {len(result.trials)} was trained")
    if outcome.model is None and watch.reason() == TIME_UP:
        # The study ends in its time, and nothing that was found is lost.
        later = training_queue.queue(order, trigger=TrainingRun.Trigger.TUNING)
        Study.objects.filter(pk=study.pk).update(run=later)
        _end(study, Status.DONE, f"{TIME_UP}: run {later.pk} trains the best")
        return
    if outcome.model is None:
        _end(study, Status.FAILED, f"the best was found but not trained: {outcome.run.reason}")
        return
    _end(study, Status.DONE, TIME_UP if result.stopped else "")


def _end(study: Study, status: str, reason: str) -> None:
    now = dt.datetime.now(dt.UTC)
    Study.objects.filter(pk=study.pk, status=Status.RUNNING).update(
        status=status, reason=reason, finished_at=now, heartbeat_at=now
    )


def _stream(name: str | None) -> Stream:
    streams = {stream.name: stream for stream in Stream.objects.order_by("name")}
    there_are = ", ".join(streams) or "none yet: a consumer makes those of the settings"
    if not name and len(streams) == 1:
        return next(iter(streams.values()))
    if not name:
        raise StudyRefused(f"A stream is needed. There are: {there_are}.")
    if name not in streams:
        raise StudyRefused(f"No stream is called {name[:100]}. There are: {there_are}.")
    return streams[name]


def _check_metric(stream: Stream, metric: str) -> None:
    if not metric:
        return
    if is_vector(metric):
        raise StudyRefused(
            f"{metric[:100]} is a schema of wide events: faults are put into single series only."
            " Name a metric, or none for all."
        )
    known = Series.objects.filter(stream=stream).order_by("metric")
    if known.exists() and not known.filter(metric=metric).exists():
        names = ", ".join(known.values_list("metric", flat=True).distinct()[:20])
        raise StudyRefused(
            f"Stream {stream.name} has no metric {metric[:100]}. There are: {names}."
        )
