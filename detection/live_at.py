"""What was live then: which scoring version counted at a moment, with its models and policies.

By the clock: what each partition's log of versions named at that moment. By event time: what
scored the events of that minute, found by their offsets, which late reading can't blur.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from django.db.models import F, Max, Min, Sum
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from detection.models import ScoringVersion, VersionLog
from detection.versions import ensemble_of
from streams.models import PipelineStat, Rollup, Stream, TopicIncarnation

By = Literal["clock", "event"]
EXAMPLE = "ISO 8601, in UTC where no zone is named: 2024-01-01T12:00 or 2024-01-01T12:00:00+01:00"


@dataclass(frozen=True, slots=True)
class LivePartition:
    """Since when, and from which offset on, a version counted in a partition."""

    topic_id: str
    partition: int
    from_offset: int
    since: dt.datetime
    events: int | None = None  # of that minute, when asked by event time


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """One scoring version and where it counted."""

    version: ScoringVersion
    partitions: list[LivePartition] = field(default_factory=list)

    @property
    def models(self) -> list[dict[str, Any]]:
        """`{id, algorithm, metric, version, sha256}` of each stored model in it."""
        found = self.version.payload.get("models", [])
        return [dict(model) for model in found]

    @property
    def policies(self) -> list[dict[str, Any]]:
        """The threshold policies, the narrowest first; the last one is the configuration's."""
        return [dict(policy) for policy in self.version.payload.get("policies", [])]

    @property
    def detectors(self) -> dict[str, dict[str, Any]]:
        """The detectors that were switched on, with their settings."""
        return {
            name: {key: value for key, value in options.items() if key != "enabled"}
            for name, options in self.version.payload.get("detectors", {}).items()
            if options.get("enabled")
        }

    @property
    def method(self) -> str:
        """How the detectors became one score."""
        return ensemble_of(self.version.payload).method

    @property
    def weights(self) -> dict[str, float]:
        """What each detector counted."""
        return dict(ensemble_of(self.version.payload).weights)

    @property
    def learnt(self) -> int | None:
        """The id of the learnt weights in it, None where the configuration's counted."""
        return (self.version.payload.get("learnt") or {}).get("id")

    @property
    def since(self) -> dt.datetime:
        """When the first of these partitions began to use it."""
        return min(part.since for part in self.partitions)


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A stream's versions at that moment: one, but while a change was on its way."""

    stream: Stream
    versions: list[LiveVersion]


def live_at(moment: dt.datetime, by: By = "clock", stream: str = "") -> list[LiveStream]:
    """What counted at ``moment``, for each stream (or one) that had something; read-only.

    By "event" it is what scored the events of that minute of event time.
    """
    places = _by_clock(moment, stream) if by == "clock" else _by_event(moment, stream)
    return _grouped(places)


def events_read(moment: dt.datetime) -> int:
    """How many events the consumers read in that minute, by the clock; 0 while none ran."""
    found = PipelineStat.objects.filter(minute=_minute(moment)).aggregate(n=Sum("events"))
    return int(found["n"] or 0)


def read_moment(text: str) -> dt.datetime:
    """A moment as people write it; without a zone it is by the present one: UTC but on pages.

    Raises:
        ValueError: it can't be read; the message says what can.
    """
    try:
        found = parse_datetime(text.strip())
    except ValueError:
        found = None
    if found is None or not 1 < found.year < 9999:
        example = EXAMPLE.replace("UTC", timezone.get_current_timezone_name())
        raise ValueError(f"{text[:60]!r} is no moment: write {example}")
    return found if found.tzinfo else found.replace(tzinfo=timezone.get_current_timezone())


def as_json(found: Iterable[LiveStream]) -> list[dict[str, Any]]:
    """For the API."""
    return [
        {
            "stream": live.stream.name,
            "versions": [
                {
                    "scoring_version": one.version.pk,
                    "sha256": one.version.sha256,
                    "since": one.since.isoformat(),
                    "models": one.models,
                    "policies": one.policies,
                    "detectors": one.detectors,
                    "combine": one.method,
                    "weights": one.weights,
                    "learnt_weights": one.learnt,
                    "time_zone": one.version.payload.get("time_zone", ""),
                    "partitions": [
                        {
                            "topic_id": part.topic_id,
                            "partition": part.partition,
                            "from_offset": part.from_offset,
                            "since": part.since.isoformat(),
                            "events": part.events,
                        }
                        for part in one.partitions
                    ],
                }
                for one in live.versions
            ],
        }
        for live in found
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    entry: VersionLog
    events: int | None


def _by_clock(moment: dt.datetime, stream: str) -> list[_Place]:
    rows = VersionLog.objects.filter(created_at__lte=moment)
    if stream:
        rows = rows.filter(incarnation__stream__name=stream)
    # A topic made anew has a life of its own: only the newest one of then was read.
    lives = TopicIncarnation.objects.filter(first_seen_at__lte=moment)
    newest = lives.values("stream").annotate(newest=Max("pk")).values("newest")
    rows = rows.filter(incarnation__in=newest)
    last = rows.order_by("incarnation", "partition", "-from_offset").distinct(
        "incarnation", "partition"
    )
    return [_Place(entry, None) for entry in last.select_related(*_WITH)]


def _by_event(moment: dt.datetime, stream: str) -> list[_Place]:
    minute = _minute(moment)
    segments = Rollup.objects.filter(minute=minute)
    if stream:
        segments = segments.filter(incarnation__stream__name=stream)
    # A segment is not cut where a version changes: it reaches at least as far as it has events.
    spans = segments.values("incarnation", "partition").annotate(
        first=Min("first_offset"), last=Max(F("first_offset") + F("count") - 1), n=Sum("count")
    )
    places: list[_Place] = []
    for span in spans.order_by("incarnation", "partition"):
        log = VersionLog.objects.filter(
            incarnation=span["incarnation"], partition=span["partition"]
        ).select_related(*_WITH)
        begun = log.filter(from_offset__lte=span["first"]).order_by("-from_offset").first()
        changed = log.filter(from_offset__gt=span["first"], from_offset__lte=span["last"])
        entries = [begun] if begun else []
        entries += list(changed.order_by("from_offset"))
        whole = span["n"] if len(entries) == 1 else None  # a minute in parts is not counted apart
        places += [_Place(entry, whole) for entry in entries]
    return places


_WITH = ("scoring_version", "incarnation__stream")


def _grouped(places: Iterable[_Place]) -> list[LiveStream]:
    streams: dict[int, LiveStream] = {}
    versions: dict[tuple[int, int], LiveVersion] = {}
    for place in places:
        entry = place.entry
        of = entry.incarnation.stream
        live = streams.setdefault(of.pk, LiveStream(of, []))
        key = (of.pk, entry.scoring_version_id)
        if key not in versions:
            versions[key] = LiveVersion(entry.scoring_version)
            live.versions.append(versions[key])
        versions[key].partitions.append(
            LivePartition(
                entry.incarnation.topic_id,
                entry.partition,
                entry.from_offset,
                entry.created_at,
                place.events,
            )
        )
    return sorted(streams.values(), key=lambda live: live.stream.name)


def _minute(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(second=0, microsecond=0)
