"""The admin's view of detection: threshold policies are edited here, models and runs are shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from detection.models import ModelTransition, ModelVersion, ThresholdPolicy, TrainingRun
from streams.audited_admin import AuditedAdmin
from streams.readonly_admin import ReadOnlyAdmin


class ThresholdPolicyForm(forms.ModelForm[ThresholdPolicy]):
    """Says field by field what is wrong, before the database's constraint would."""

    class Meta:
        model = ThresholdPolicy
        fields = (
            "name", "enabled", "stream", "source_pattern", "metric_pattern", "priority",
            "threshold", "direction", "min_absolute_deviation", "min_relative_deviation",
            "max_onsets_per_day", "silence_after_s", "medium_from", "high_from", "critical_from",
        )  # fmt: skip
        help_texts: dict[str, Any] = {
            "direction": "Which way a value must leave its expected band: up, down or both.",
            "priority": "Among policies that are equally narrow the higher number wins.",
            "medium_from": "An anomaly below this score is low.",
            "high_from": "From this score on an anomaly is high.",
            "critical_from": "From this score on an anomaly is critical.",
        }

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        medium, high, critical = (data.get(f"{n}_from") for n in ("medium", "high", "critical"))
        if medium is not None and high is not None and high < medium:
            self.add_error("high_from", f"Severity bands must rise: at least {medium:g}.")
        if high is not None and critical is not None and critical < high:
            self.add_error("critical_from", f"Severity bands must rise: at least {high:g}.")
        for name in ("threshold", "min_absolute_deviation", "min_relative_deviation",
                     "max_onsets_per_day", "silence_after_s"):  # fmt: skip
            value = data.get(name)
            if value is not None and value in (float("inf"), float("-inf")):
                self.add_error(name, "Write a finite number.")
        return data


@admin.register(ThresholdPolicy)
class ThresholdPolicyAdmin(AuditedAdmin):
    """When a score becomes an anomaly. Consumers take a saved policy up within five seconds."""

    form = ThresholdPolicyForm
    unaudited = ThresholdPolicy.FOLLOWS
    list_display = ("name", "enabled", "reach", "threshold", "max_onsets_per_day", "direction",
                    "priority", "version", "updated_at")  # fmt: skip
    list_filter = ("enabled", "direction", "stream")
    list_select_related = ("stream",)
    search_fields = ("name", "source_pattern", "metric_pattern")
    readonly_fields = ("version", "updated_at")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "version", "updated_at"),
                "description": "Saving makes a new version. Running consumers use it within five "
                               "seconds, for events from then on; each anomaly names the version "
                               "that flagged it."}),
        ("For which series", {"fields": ("stream", "source_pattern", "metric_pattern", "priority"),
                              "description": "The narrowest enabled policy wins: patterns over a "
                                             "stream over everything, then the higher priority, "
                                             "then the newer one."}),
        ("When it is an anomaly", {"fields": ("threshold", "direction", "min_absolute_deviation",
                                              "min_relative_deviation")}),
        ("How often at most", {"fields": ("max_onsets_per_day",),
                               "description": "Onsets of one series and day. What it holds back "
                                              "is kept as a near miss and counted on the series' "
                                              "page."}),
        ("When it is missing", {"fields": ("silence_after_s",),
                                "description": "A series that falls silent is an anomaly as well. "
                                               "It is at its limit when the silence begins to "
                                               "count, and grows more severe as it lasts."}),
        ("How severe it is", {"fields": ("medium_from", "high_from", "critical_from")}),
    )  # fmt: skip

    @admin.display(description="for")
    def reach(self, policy: ThresholdPolicy) -> str:
        patterns = f"{policy.source_pattern or '*'} / {policy.metric_pattern or '*'}"
        stream = policy.stream.name if policy.stream else "every stream"
        narrow = policy.source_pattern or policy.metric_pattern
        return f"{stream}: {patterns}" if narrow else stream


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    """Trained models; `manage.py train` makes them."""

    list_display = ("algorithm", "version", "stream", "metric", "state", "sha256", "created_at",
                    "promoted_at")  # fmt: skip
    list_filter = ("state", "algorithm", "stream")
    list_select_related = ("stream",)
    exclude = ("artefact",)


@admin.register(TrainingRun)
class TrainingRunAdmin(ReadOnlyAdmin):
    list_display = ("id", "algorithm", "stream", "metric", "status", "trigger", "requested_by",
                    "attempt", "rows", "started_at", "finished_at")  # fmt: skip
    list_filter = ("status", "trigger", "algorithm", "stream")
    list_select_related = ("stream", "requested_by")


@admin.register(ModelTransition)
class ModelTransitionAdmin(ReadOnlyAdmin):
    """Who changed a model's state, when and why."""

    list_display = ("at", "model", "from_state", "to_state", "actor", "reason")
    list_filter = ("to_state", "model__stream", "model__algorithm")
    list_select_related = ("model",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelTransition]:
        return super().get_queryset(request).defer("model__artefact")
