"""The pages' and the API's addresses of this app."""

from __future__ import annotations

from django.urls import path, re_path

from anomalies import (
    anomaly_views,
    bulk_views,
    model_api,
    note_views,
    overview,
    saved_views,
    views,
)
from anomalies.api import (
    anomalies_view,
    drift_view,
    evidence_view,
    feedback_view,
    health_view,
    label_view,
    statistics_view,
)

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("theme", views.theme, name="theme"),
    path("seen", overview.seen, name="seen"),
    path("components", overview.components, name="components"),
    path("anomalies/", anomaly_views.anomaly_list, name="anomalies"),
    path("anomalies/export.<slug:form>", anomaly_views.anomaly_export, name="anomalies-export"),
    path("anomalies/since", anomaly_views.anomalies_since, name="anomalies-since"),
    path("anomalies/label", bulk_views.bulk_label, name="bulk-label"),
    path("anomalies/label/<int:pk>/undo", bulk_views.bulk_undo, name="bulk-undo"),
    path("anomalies/views/save", saved_views.view_save, name="view-save"),
    path("anomalies/views/<int:pk>/", saved_views.view_open, name="view-open"),
    path("anomalies/views/<int:pk>/default", saved_views.view_default, name="view-default"),
    path("anomalies/views/<int:pk>/delete", saved_views.view_delete, name="view-delete"),
    path("anomalies/notes/<int:pk>/change", note_views.note_change, name="note-change"),
    path("anomalies/notes/<int:pk>/delete", note_views.note_delete, name="note-delete"),
    path("anomalies/<uuid:pk>/", anomaly_views.anomaly_detail, name="anomaly"),
    path("anomalies/<uuid:pk>/label", anomaly_views.anomaly_label, name="anomaly-label"),
    path("anomalies/<uuid:pk>/notes", note_views.note_add, name="note-add"),
    path("anomalies/<uuid:pk>/why", anomaly_views.anomaly_why, name="anomaly-why"),
    path("feedback/", views.feedback_page, name="feedback"),
    path("series/", views.series_list, name="series-list"),
    path("series/<int:pk>/", views.series_detail, name="series"),
    path("series/<int:pk>/threshold", views.series_threshold, name="series-threshold"),
    path("api/feedback", feedback_view, name="api-feedback"),
    path("api/anomalies/<uuid:pk>/evidence", evidence_view, name="api-evidence"),
    path("api/anomalies/<uuid:pk>/label", label_view, name="api-label"),
    path("api/health", health_view, name="api-health"),
    path("api/statistics", statistics_view, name="api-statistics"),
    path("api/drift", drift_view, name="api-drift"),
    path("api/anomalies", anomalies_view, name="api-anomalies"),
    path("api/models", model_api.models_view, name="api-models"),
    path("api/models/live", model_api.live_view, name="api-models-live"),
    path("api/models/train", model_api.train_view, name="api-train"),
    path("api/models/<int:identity>", model_api.model_view, name="api-model"),
    path("api/models/<int:identity>/promote", model_api.promote_view, name="api-promote"),
    path("api/models/<int:identity>/challenge", model_api.challenge_view, name="api-challenge"),
    path("api/models/<int:identity>/retire", model_api.retire_view, name="api-retire"),
    path("api/models/<int:identity>/rollback", model_api.rollback_view, name="api-rollback"),
    path("api/training", model_api.runs_view, name="api-training"),
    path("api/training/<int:identity>", model_api.run_view, name="api-training-run"),
    path("api/training/<int:identity>/cancel", model_api.cancel_view, name="api-cancel"),
    # A source may hold any character, slashes included, so the rest of the path is its name.
    re_path(r"^api/anomalies/(?P<source>.+)$", anomalies_view, name="api-anomalies-source"),
]
