"""What the checks of each stage look at, read once, and what a check says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from django.db.models import Count, Max, Q, Sum

from config.schema import VigilConfig
from detection.models import VersionLog
from streams.broker import Broker, Topic
from streams.heartbeat import GONE_AFTER, STARTING
from streams.models import DeadLetter, PartitionOffset, PipelineStat, Process, Series
from streams.pace import paces
from streams.partitions import Consumers, Row, consumers, look, rows_of, stored_offsets
from streams.ranges import named_range

FIRST_SCORE, SURE = 30, 150  # events of a series: its first score; every online detector


@dataclass(frozen=True, slots=True)
class Check:
    """`state` is ok, warn, bad or skip; `todo` is one thing to do, `href` where."""

    name: str
    state: str
    said: str
    todo: str = ""
    href: str = ""
    link: str = ""


class World:
    """What the checks look at; each part is read once, when the first one needs it."""

    def __init__(self, config: VigilConfig, now: datetime) -> None:
        self.config = config
        self.now = now

    @cached_property
    def topics(self) -> list[str]:
        return [self.config.topic_of(stream) for stream in self.config.streams]

    @cached_property
    def stored(self) -> dict[str, dict[int, PartitionOffset]]:
        return stored_offsets()

    @cached_property
    def broker(self) -> Broker:
        return look(self.topics, self.stored, self.now)

    @cached_property
    def about(self) -> list[tuple[str, Topic]]:
        return [(name, self.broker.topics.get(name, Topic(False))) for name in self.topics]

    @cached_property
    def who(self) -> Consumers:
        return consumers(self.now)

    @cached_property
    def starting(self) -> bool:
        """Whether a consumer runs that does not read yet."""
        alive = Process.objects.filter(beat_at__gte=self.now - GONE_AFTER)
        return alive.filter(kind=Process.Kind.CONSUMER, doing=STARTING).exists()

    @cached_property
    def rows(self) -> list[Row]:
        found = paces(self.topics, named_range("1h", self.now))
        return [
            row
            for topic in self.topics
            for row in rows_of(
                topic, self.stored.get(topic, {}), self.broker, self.who, found[topic], self.now
            )
        ]

    @cached_property
    def worked(self) -> dict[str, int]:
        """Events and dead letters of the last hour."""
        since = self.now - timedelta(hours=1)
        found = PipelineStat.objects.filter(minute__gte=since).aggregate(
            events=Sum("events"), rejects=Sum("rejects")
        )
        return {name: n or 0 for name, n in found.items()}

    @cached_property
    def rejected(self) -> dict[str, int]:
        """Dead letters of the last hour by reason."""
        since = self.now - timedelta(hours=1)
        found = DeadLetter.objects.filter(created_at__gte=since).order_by()
        return dict(found.values_list("reason").annotate(n=Count("id")))

    @cached_property
    def series(self) -> dict[str, int]:
        return Series.objects.aggregate(
            all=Count("id"), scored=Count("id", Q(events__gte=FIRST_SCORE)),
            sure=Count("id", Q(events__gte=SURE)), most=Max("events"),
            raised=Count("raised_threshold"), held=Sum("held_back"), newest=Max("last_event_at"),
        )  # fmt: skip

    @cached_property
    def version(self) -> VersionLog | None:
        return (
            VersionLog.objects.select_related("scoring_version")
            .order_by("-created_at", "-pk").first()
        )  # fmt: skip


def lasting(span: timedelta | float) -> str:
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
