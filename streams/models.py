"""What a stream is and where the consumer stands in it: series, rollups, offsets, dead letters.

Offsets here are the truth: Kafka's own committed offsets only follow them. All apps' changes by
people stand here as well (``streams.audit``), since every app may import this one.
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models


class Stream(models.Model):
    """One Kafka topic of events and how its messages are read."""

    name = models.SlugField(max_length=200, unique=True)
    topic = models.CharField(max_length=249, unique=True)
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="IANA zone the seasons of this stream follow."
    )
    naive_time_zone = models.CharField(
        max_length=64,
        blank=True,
        default="",
        help_text="Zone of timestamps that carry none; empty means such events are refused.",
    )
    grace_s = models.PositiveIntegerField(default=0)
    mapping = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class TopicIncarnation(models.Model):
    """One life of a topic: a topic deleted and made again starts its offsets anew."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="incarnations")
    topic_id = models.CharField(max_length=64, unique=True, help_text="Kafka's id of the topic.")
    first_seen_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.stream.name}/{self.topic_id}"


class Series(models.Model):
    """One line of measurements: what a source says of a metric."""

    stream = models.ForeignKey(
        Stream, on_delete=models.CASCADE, related_name="series", db_index=False
    )
    source = models.CharField(max_length=255)
    metric = models.CharField(max_length=255)
    first_event_at = models.DateTimeField(null=True)
    last_event_at = models.DateTimeField(null=True)
    last_value = models.FloatField(null=True)
    last_partition = models.IntegerField(null=True)
    other_partition = models.IntegerField(
        null=True,
        help_text="A second partition this series was seen in: a producer's keying fault.",
    )
    events = models.BigIntegerField(default=0)
    held_back = models.BigIntegerField(
        default=0, help_text="Onsets that a budget of onsets a day held back so far."
    )
    raised_threshold = models.FloatField(
        null=True, help_text="What that budget has raised the threshold to; empty: it has not."
    )
    usual_gap_s = models.FloatField(null=True, help_text="Between its events, as it has learnt.")
    silence_after_s = models.FloatField(
        null=True, help_text="Without an event for so long it is silent; empty: never, or not yet."
    )
    delivery_delay_s = models.FloatField(
        null=True, help_text="How long its events take to arrive; empty: it was not seen live."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "series"
        constraints = [
            models.UniqueConstraint(
                fields=["stream", "source", "metric"], name="streams_series_identity"
            )
        ]
        indexes = [models.Index(fields=["source", "metric"], name="streams_series_source")]

    def __str__(self) -> str:
        return f"{self.metric} on {self.source}"


class Rollup(models.Model):
    """One minute of one series, as one partition delivered it; partitioned by day in plain SQL.

    A row is a *segment*: events of one series that lie in one minute and follow each other. Late
    events open a segment of their own, so every row is written whole and a replay writes the same.
    ``score_counts[i]`` and ``onset_counts[i]`` count scores and onsets at threshold
    ``detection.thresholds.LEVELS[i]``; both are null where every count is 0.
    """

    pk = models.CompositePrimaryKey("series", "minute", "incarnation", "partition", "first_offset")
    series = models.ForeignKey(Series, on_delete=models.DO_NOTHING, db_constraint=False)
    minute = models.DateTimeField()
    incarnation = models.ForeignKey(
        TopicIncarnation, on_delete=models.DO_NOTHING, db_constraint=False
    )
    partition = models.IntegerField()
    first_offset = models.BigIntegerField()
    count = models.IntegerField()
    scored = models.IntegerField()
    min = models.FloatField()
    max = models.FloatField()
    mean = models.FloatField()
    last = models.FloatField()
    max_score = models.FloatField(null=True)
    expected_low = models.FloatField(null=True)
    expected_mid = models.FloatField(null=True)
    expected_high = models.FloatField(null=True)
    score_counts = ArrayField(models.IntegerField(), null=True)
    onset_counts = ArrayField(models.IntegerField(), null=True)

    class Meta:
        managed = False
        db_table = "streams_rollup"


class RollupHour(models.Model):
    """One hour of one series, as one partition delivered it, made of its minutes (`streams.hours`).

    A sealed row holds what minutes held that are gone by now. It and the other row, of minutes
    that are still there, add up; only late events give an hour both.
    """

    pk = models.CompositePrimaryKey("series", "hour", "incarnation", "partition", "sealed")
    series = models.ForeignKey(Series, on_delete=models.DO_NOTHING, db_constraint=False,
                               db_index=False)  # fmt: skip
    hour = models.DateTimeField()
    incarnation = models.ForeignKey(
        TopicIncarnation, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    partition = models.IntegerField()
    sealed = models.BooleanField(default=False)
    count = models.BigIntegerField()
    scored = models.BigIntegerField()
    bands = models.IntegerField(help_text="Segments with a band: what the band's means weigh.")
    min = models.FloatField()
    max = models.FloatField()
    mean = models.FloatField()
    last = models.FloatField()
    max_score = models.FloatField(null=True)
    expected_low = models.FloatField(null=True)
    expected_mid = models.FloatField(null=True)
    expected_high = models.FloatField(null=True)
    score_counts = ArrayField(models.IntegerField(), null=True)
    onset_counts = ArrayField(models.IntegerField(), null=True)

    class Meta:
        indexes = [models.Index(fields=["hour"], name="streams_rolluphour_hour")]


class HourDue(models.Model):
    """An hour of a partition whose minutes changed since its rows in RollupHour were made.

    Counted up in each transaction that writes such minutes, so that none is overlooked.
    """

    pk = models.CompositePrimaryKey("incarnation", "partition", "hour")
    incarnation = models.ForeignKey(
        TopicIncarnation, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    partition = models.IntegerField()
    hour = models.DateTimeField()
    changes = models.BigIntegerField(default=1)
    since = models.DateTimeField()
    touched_at = models.DateTimeField()


class PartitionOffset(models.Model):
    """Where one partition stands: the next offset to score, and who may move it."""

    incarnation = models.ForeignKey(
        TopicIncarnation, on_delete=models.CASCADE, related_name="partitions"
    )
    partition = models.IntegerField()
    next_offset = models.BigIntegerField(default=0)
    owner_epoch = models.BigIntegerField(default=0)
    owner = models.CharField(max_length=200, blank=True, default="")
    snapshot_offset = models.BigIntegerField(
        default=0, help_text="Every stored series state holds all of its events below this offset."
    )
    events = models.BigIntegerField(default=0)
    rejects = models.BigIntegerField(default=0)
    watermark = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incarnation", "partition"], name="streams_partition_identity"
            )
        ]

    def __str__(self) -> str:
        return f"{self.incarnation}[{self.partition}]@{self.next_offset}"


class StateSnapshot(models.Model):
    """The detectors' state of one series in one partition, with the last offset it has seen."""

    incarnation = models.ForeignKey(TopicIncarnation, on_delete=models.CASCADE, db_index=False)
    partition = models.IntegerField()
    series = models.ForeignKey(Series, on_delete=models.CASCADE)
    last_offset = models.BigIntegerField()
    layout = models.TextField(help_text="How the state is packed; the engine knows.")
    state = models.BinaryField()
    saved_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incarnation", "partition", "series"], name="streams_snapshot_identity"
            )
        ]


class DeadLetter(models.Model):
    """A message that could not become an event: its raw bytes, its place and the reason."""

    class State(models.TextChoices):
        WAITING = "waiting"
        RETRIED = "retried"
        DISMISSED = "dismissed"

    incarnation = models.ForeignKey(
        TopicIncarnation, on_delete=models.CASCADE, related_name="dead_letters", db_index=False
    )
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    reason = models.CharField(max_length=40)
    detail = models.TextField()
    key = models.BinaryField(null=True)
    raw = models.BinaryField(null=True, help_text="Null where the message itself had no value.")
    size = models.IntegerField(default=0)
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    created_at = models.DateTimeField(auto_now_add=True)
    handled_at = models.DateTimeField(null=True)
    handled_by = models.CharField(max_length=150, blank=True, default="")
    note = models.CharField(
        max_length=200, blank=True, default="", help_text="Why it was discarded."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incarnation", "partition", "offset"], name="streams_deadletter_identity"
            )
        ]
        indexes = [models.Index(fields=["state", "-created_at"], name="streams_deadletter_waiting")]


class ConsumerStatus(models.Model):
    """What one consumer process last said of itself; a beat older than 15 s means it is gone."""

    instance = models.CharField(max_length=200, unique=True)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    events_per_s = models.FloatField(default=0)
    lag = models.BigIntegerField(default=0)
    latency_p95_ms = models.FloatField(null=True)
    rss_mb = models.FloatField(default=0)
    series = models.IntegerField(default=0)
    partitions = models.JSONField(
        default=list, help_text="[{topic, partition, next_offset, end_offset, events_per_s}]"
    )
    state = models.CharField(max_length=20, default="running")

    class Meta:
        verbose_name_plural = "consumer statuses"


class Process(models.Model):
    """A process of Vigil and its last sign of life; an orderly end takes the row along."""

    class Kind(models.TextChoices):
        CONSUMER = "consumer"
        WEB = "web"
        WORKER = "worker"
        SCHEDULER = "scheduler"
        ALERTS = "alerts"

    kind = models.CharField(max_length=10, choices=Kind)
    host = models.CharField(max_length=200)
    pid = models.IntegerField()
    version = models.CharField(max_length=40)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    doing = models.CharField(max_length=200, blank=True, default="")
    cpu_share = models.FloatField(null=True, help_text="Cores in use since the sign before.")
    rss_mb = models.FloatField(default=0)

    class Meta:
        verbose_name_plural = "processes"
        constraints = [
            models.UniqueConstraint(fields=["kind", "host", "pid"], name="streams_process_identity")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.host}/{self.pid}"


class Preferences(models.Model):
    """What one user set for the pages; who has no row has set nothing."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True,
        related_name="preferences",
    )  # fmt: skip
    time_zone = models.CharField(
        max_length=64, blank=True, default="", help_text="IANA zone; empty follows the browser."
    )
    shortcuts = models.BooleanField(default=True, help_text="Single letters as keys.")

    class Meta:
        verbose_name_plural = "preferences"


class PipelineStat(models.Model):
    """One minute (wall clock) of one consumer's work, for the health strip's sparklines."""

    instance = models.CharField(max_length=200)
    minute = models.DateTimeField()
    events = models.BigIntegerField(default=0)
    anomalies = models.IntegerField(default=0)
    rejects = models.IntegerField(default=0)
    latency_p95_ms = models.FloatField(null=True)
    lag = models.BigIntegerField(default=0)
    places = models.JSONField(
        default=dict, help_text="{topic/partition: [next offset, end offset]}, last seen in it."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["instance", "minute"], name="streams_stat_identity")
        ]
        indexes = [models.Index(fields=["-minute"], name="streams_stat_minute")]


class AuditEntry(models.Model):
    """Who changed what, with before and after. Only added to: PostgreSQL refuses to change or
    delete a row, so the user's key stays when the user goes."""

    class Action(models.TextChoices):
        CREATED = "created"
        CHANGED = "changed"
        DELETED = "deleted"
        ACTED = "acted"  # promoted, rolled back, sent a test …

    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.DO_NOTHING, db_constraint=False,
        related_name="+",
    )  # fmt: skip
    actor_name = models.CharField(max_length=150)
    via = models.CharField(max_length=20, help_text="page, admin, api, command or system.")
    action = models.CharField(max_length=8, choices=Action)
    kind = models.CharField(max_length=60, help_text="What sort of thing: app.Model.")
    object_id = models.CharField(max_length=60)
    object_name = models.CharField(max_length=300)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    reverts = models.ForeignKey(
        "self", null=True, on_delete=models.DO_NOTHING, related_name="reverted_by"
    )

    class Meta:
        verbose_name_plural = "audit entries"
        indexes = [
            models.Index(fields=["kind", "object_id", "-id"], name="streams_audit_object"),
            models.Index(fields=["actor_name", "-id"], name="streams_audit_actor"),
            models.Index(fields=["-at"], name="streams_audit_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.kind.rpartition('.')[2]} {self.object_name}"
