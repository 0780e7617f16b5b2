"""The admin's view of anomalies: labels can be set, everything else is what the pipeline found."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from anomalies.models import Anomaly, Outbox


class _Owned(admin.ModelAdmin[Any]):
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Anomaly)
class AnomalyAdmin(_Owned):
    list_display = ("source", "metric", "anomaly_type", "severity", "peak_score", "state", "label",
                    "origin", "onset_at")  # fmt: skip
    list_filter = ("severity", "anomaly_type", "state", "label", "origin", "stream")
    search_fields = ("source", "metric")
    list_per_page = 50
    fields = tuple(f.name for f in Anomaly._meta.fields if f.name != "context")
    readonly_fields = tuple(
        f.name for f in Anomaly._meta.fields if f.name not in ("label", "context")
    )

    def save_model(self, request: HttpRequest, obj: Anomaly, form: Any, change: bool) -> None:
        if "label" in form.changed_data:
            obj.labelled_by_id = request.user.pk if obj.label else None
            obj.labelled_at = timezone.now() if obj.label else None
        # Only the label: a consumer may have moved the episode on since the form was opened.
        obj.save(update_fields=["label", "labelled_by", "labelled_at", "updated_at"])


@admin.register(Outbox)
class OutboxAdmin(_Owned):
    list_display = ("id", "kind", "anomaly_id", "sequence", "created_at", "published_at")
    list_filter = ("kind", ("published_at", admin.EmptyFieldListFilter))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
