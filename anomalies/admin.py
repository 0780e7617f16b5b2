"""The admin's view of anomalies: labels can be set, everything else is what the pipeline found."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from anomalies import feedback
from anomalies.models import Anomaly, Outbox
from streams.readonly_admin import ReadOnlyAdmin
from streams.roles import may_operate


@admin.register(Anomaly)
class AnomalyAdmin(ReadOnlyAdmin):
    list_display = ("source", "metric", "anomaly_type", "severity", "peak_score", "state", "label",
                    "origin", "onset_at")  # fmt: skip
    list_filter = ("severity", "anomaly_type", "state", "label", "origin", "stream")
    search_fields = ("source", "metric")
    list_per_page = 50
    fields = tuple(f.name for f in Anomaly._meta.fields if f.name != "context")
    readonly_fields = tuple(
        f.name for f in Anomaly._meta.fields if f.name not in ("label", "context")
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_operate(request.user)

    def save_model(self, request: HttpRequest, obj: Anomaly, form: Any, change: bool) -> None:
        # Only the label: a consumer may have moved the episode on since the form was opened.
        if "label" in form.changed_data and request.user.is_authenticated:
            feedback.set_label(obj.pk, obj.label, request.user)


@admin.register(Outbox)
class OutboxAdmin(ReadOnlyAdmin):
    list_display = ("id", "kind", "anomaly_id", "sequence", "created_at", "published_at")
    list_filter = ("kind", ("published_at", admin.EmptyFieldListFilter))
