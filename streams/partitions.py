"""A stream's partitions: stored offsets beside what the broker and the consumers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from streams.broker import Broker, Place, Topic, looker
from streams.models import ConsumerStatus, PartitionOffset, Stream
from streams.pace import Pace, Paces

ALIVE = timedelta(seconds=15)
# Unread for longer than this, a partition's oldest message is looked at: how long it is still kept.
LATE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Row:
    """One partition; None is not known."""

    number: int
    next_offset: int | None
    end: int | None
    lag: int | None
    lag_share: float
    read: float | None
    arrived: float | None
    spark: list[float | None]
    behind_s: float | None
    watermark: datetime | None
    rejects: int
    owner: str
    led: bool
    # How long the oldest unread message is still kept; whole where nothing waits.
    kept_s: float | None
    for_ever: bool
    lost: int

    @property
    def retention_is_short(self) -> bool:
        return self.kept_s is not None and self.kept_s < 3_600


@dataclass(frozen=True, slots=True)
class State:
    """Whether a stream is read: a word for the tag, a sentence and one thing to do where not."""

    css: str
    word: str
    said: str = ""
    todo: str = ""


@dataclass(frozen=True, slots=True)
class Consumers:
    """Who reads what, of those that gave a sign within `ALIVE`."""

    rows: list[ConsumerStatus]
    said: Mapping[Place, tuple[str, Mapping[str, Any]]]

    @property
    def restoring(self) -> bool:
        return any(row.state == "restoring" for row in self.rows)


def consumers(now: datetime) -> Consumers:
    rows = [
        row
        for row in ConsumerStatus.objects.filter(beat_at__gte=now - ALIVE).order_by("instance")
        if row.state != "stopped"
    ]
    said: dict[Place, tuple[str, Mapping[str, Any]]] = {}
    for row in rows:
        for part in row.partitions or []:
            said[part.get("topic", ""), part.get("partition", -1)] = (row.instance, part)
    return Consumers(rows, said)


def stored_offsets() -> dict[str, dict[int, PartitionOffset]]:
    """By topic and partition; of a topic made anew only its present life counts."""
    found: dict[str, dict[int, PartitionOffset]] = {}
    offsets = PartitionOffset.objects.select_related("incarnation__stream")
    for offset in offsets.order_by("incarnation"):
        found.setdefault(offset.incarnation.stream.topic, {})[offset.partition] = offset
    return found


def look(
    topics: list[str], stored: Mapping[str, Mapping[int, PartitionOffset]], now: datetime
) -> Broker:
    """What the broker says, at most some seconds old."""
    unread = {
        (topic, number): offset.next_offset
        for topic, parts in stored.items() if topic in topics
        for number, offset in parts.items() if now - offset.updated_at > LATE
    }  # fmt: skip
    return looker.look(settings.VIGIL.kafka.client_config(), topics, unread)


def rows_of(
    topic: str,
    stored: Mapping[int, PartitionOffset],
    broker: Broker,
    who: Consumers,
    paces: Paces,
    now: datetime,
) -> list[Row]:
    about = broker.topics.get(topic, Topic(False))
    lags = {n: _lag(topic, n, stored.get(n), about, who) for n in {*stored, *about.partitions}}
    most = max((lag or 0 for lag in lags.values()), default=0)
    rows = []
    for number, lag in sorted(lags.items()):
        offset, ends = stored.get(number), about.partitions.get(number)
        owner, _ = who.said.get((topic, number), ("", {}))
        pace = paces.partitions.get(number, Pace([], [], []))
        read, arrived = _latest(pace.read), _latest(pace.arrived)
        since = broker.unread_since.get((topic, number)) if lag else None
        behind = (now - since).total_seconds() if since else None
        if behind is None and lag is not None:
            behind = 0.0 if not lag else lag / read if read else None
        kept = about.retention.total_seconds() if about.retention is not None else None
        if kept is not None and lag:
            kept = max(0.0, kept - (behind or 0.0)) if behind is not None else None
        next_offset = offset.next_offset if offset else None
        rows.append(Row(
            number=number, next_offset=next_offset, end=ends.end if ends else None, lag=lag,
            lag_share=(lag or 0) / max(most, 10), read=read, arrived=arrived,
            spark=list(pace.read), behind_s=behind, watermark=offset.watermark if offset else None,
            rejects=offset.rejects if offset else 0, owner=owner, led=ends.led if ends else True,
            kept_s=kept, for_ever=about.exists and about.retention is None,
            lost=max(0, ends.first - next_offset) if ends and next_offset is not None else 0,
        ))  # fmt: skip
    return rows


def state_of(stream: Stream, broker: Broker, rows: list[Row], who: Consumers) -> State:
    if not broker.reachable:
        return State(
            "bad", "Kafka is away", f"Kafka does not answer ({broker.said}). What is stored is "
            "shown; scoring goes on from the same offset once it is back.",
            "Bring the broker back, or mend kafka.bootstrap_servers.",
        )  # fmt: skip
    about = broker.topics.get(stream.topic, Topic(False))
    if not about.exists:
        return State(
            "bad", "no topic", f"The topic {stream.topic} does not exist ({about.said}).",
            "Make it with `manage.py topics`, or let the producer make it.",
        )  # fmt: skip
    if lost := sum(row.lost for row in rows):
        return State(
            "bad", "events lost", f"{lost:,} events were deleted by Kafka’s retention before they "
            "were read.", "Keep messages longer in Kafka (retention.ms of the topic).",
        )  # fmt: skip
    alone = [row for row in rows if not row.owner]
    if len(alone) == len(rows):
        return State(
            "bad", "no consumer", "No consumer reads this stream: events wait in Kafka.",
            "Start one: `manage.py runconsumer`.",
        )  # fmt: skip
    if alone:
        names = ", ".join(str(row.number) for row in alone[:8])
        return State(
            "warn", f"{len(alone)} of {len(rows)} partitions unread",
            f"Nobody reads partition {names} just now: after a consumer died the group waits for "
            "its session time-out.", "Look again in a minute, or start another consumer.",
        )  # fmt: skip
    if who.restoring:
        return State("warn", "restoring", "A consumer restores the state of its series.")
    return State("ok", "running")


def _lag(
    topic: str, number: int, offset: PartitionOffset | None, about: Topic, who: Consumers
) -> int | None:
    ends = about.partitions.get(number)
    _, part = who.said.get((topic, number), ("", {}))
    end = ends.end if ends else part.get("end_offset")
    if end is None:
        return None
    if offset is None:
        return int(end) - (ends.first if ends else 0)
    return max(0, int(end) - max(offset.next_offset, int(part.get("next_offset", 0))))


def _latest(column: Any) -> float | None:
    return next((v for v in reversed(column) if v is not None), None)
