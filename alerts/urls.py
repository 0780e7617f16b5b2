"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from alerts import (
    api,
    delivery_views,
    incident_api,
    incident_views,
    link_views,
    receiver_views,
    rule_views,
    silence_views,
)

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
    path("alerts/receivers/", receiver_views.receiver_list, name="receivers"),
    path("alerts/receivers/new/<slug:kind>", receiver_views.receiver_new, name="receiver-new"),
    path("alerts/receivers/preview", receiver_views.template_preview, name="template-preview"),
    path("alerts/receivers/<int:pk>/", receiver_views.receiver_edit, name="receiver"),
    path("alerts/receivers/<int:pk>/test", receiver_views.receiver_test, name="receiver-test"),
    path("alerts/receivers/<int:pk>/delete", receiver_views.receiver_delete,
         name="receiver-delete"),
    path("alerts/deliveries/", delivery_views.delivery_list, name="deliveries"),
    path("alerts/deliveries/resend", delivery_views.deliveries_resend, name="deliveries-resend"),
    path("alerts/deliveries/<uuid:pk>/", delivery_views.delivery_detail, name="delivery"),
    path("alerts/deliveries/<uuid:pk>/resend", delivery_views.delivery_resend,
         name="delivery-resend"),
    path("act/<str:token>", link_views.link_view, name="alert-link"),
]  # fmt: skip
