"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from alerts import api, incident_api, incident_views, rule_views, silence_views

urlpatterns = [
    path("api/alert", api.alert_view, name="api-alert"),
    path("alerts/", rule_views.rule_list, name="rules"),
    path("alerts/rules/new", rule_views.rule_new, name="rule-new"),
    path("alerts/rules/<int:pk>/", rule_views.rule_edit, name="rule"),
    path("alerts/rules/<int:pk>/preview", rule_views.rule_preview, name="rule-preview"),
    path("alerts/rules/<int:pk>/draft", rule_views.rule_draft, name="rule-draft"),
    path("alerts/rules/<int:pk>/live", rule_views.rule_live, name="rule-live"),
    path("alerts/rules/<int:pk>/discard", rule_views.rule_discard, name="rule-discard"),
    path("alerts/rules/<int:pk>/history", rule_views.rule_history, name="rule-history"),
    path("alerts/rules/<int:pk>/rename", rule_views.rule_rename, name="rule-rename"),
    path("alerts/silences/", silence_views.silence_list, name="silences"),
    path("alerts/silences/new", silence_views.silence_edit, name="silence-new"),
    path("alerts/silences/create", silence_views.silence_save, name="silence-create"),
    path("alerts/silences/preview", silence_views.silence_preview, name="silence-preview-new"),
    path("alerts/silences/<int:pk>/", silence_views.silence_edit, name="silence"),
    path("alerts/silences/<int:pk>/save", silence_views.silence_save, name="silence-save"),
    path("alerts/silences/<int:pk>/preview", silence_views.silence_preview, name="silence-preview"),
    path("alerts/silences/<int:pk>/end", silence_views.silence_end, name="silence-end"),
    path("alerts/silences/<int:pk>/switch", silence_views.silence_switch, name="silence-switch"),
    path("api/incidents", incident_api.incidents_view, name="api-incidents"),
    path("api/incidents/<int:number>", incident_api.incident_view, name="api-incident"),
    path("api/incidents/<int:number>/<str:action>", incident_api.action_view, name="api-act"),
    path("incidents/", incident_views.incident_list, name="incidents"),
    path("incidents/<int:number>/", incident_views.incident, name="incident"),
    path("incidents/<int:number>/<str:action>/", incident_views.act, name="incident-act"),
]
