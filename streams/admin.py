"""The admin's view of streams: mapping and zones can be edited, what consumers write can't."""

from __future__ import annotations

from django.contrib import admin

from streams.models import (
    AuditEntry,
    ConsumerStatus,
    DeadLetter,
    PartitionOffset,
    Series,
    Stream,
    TopicIncarnation,
)
from streams.readonly_admin import ReadOnlyAdmin


@admin.register(Stream)
class StreamAdmin(ReadOnlyAdmin):
    """Streams come from config.yaml, which is the place to change them."""

    list_display = ("name", "topic", "time_zone", "created_at")
    search_fields = ("name", "topic")


@admin.register(TopicIncarnation)
class TopicIncarnationAdmin(ReadOnlyAdmin):
    list_display = ("stream", "topic_id", "first_seen_at")
    list_filter = ("stream",)


@admin.register(Series)
class SeriesAdmin(ReadOnlyAdmin):
    list_display = ("source", "metric", "stream", "events", "last_value", "last_event_at",
                    "last_partition", "other_partition")  # fmt: skip
    list_filter = ("stream", ("other_partition", admin.EmptyFieldListFilter))
    list_select_related = ("stream",)
    search_fields = ("source", "metric")


@admin.register(PartitionOffset)
class PartitionOffsetAdmin(ReadOnlyAdmin):
    list_display = ("incarnation", "partition", "next_offset", "snapshot_offset", "events",
                    "rejects", "owner", "owner_epoch", "updated_at")  # fmt: skip
    list_filter = ("incarnation__stream",)
    list_select_related = ("incarnation__stream",)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ("reason", "incarnation", "partition", "offset", "size", "state", "created_at")
    list_filter = ("state", "reason", "incarnation__stream")
    list_select_related = ("incarnation__stream",)
    exclude = ("raw", "key")


@admin.register(ConsumerStatus)
class ConsumerStatusAdmin(ReadOnlyAdmin):
    list_display = ("instance", "state", "beat_at", "events_per_s", "lag", "latency_p95_ms",
                    "series", "rss_mb")  # fmt: skip


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who changed what: the page Audit says it in words, and takes changes back."""

    list_display = ("at", "actor_name", "via", "action", "kind", "object_name")
    list_filter = ("kind", "action", "via")
    search_fields = ("object_name", "actor_name")
    date_hierarchy = "at"
