"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from detection import line_views, tuning_views, views, weights_views

urlpatterns = [
    path("models/", views.model_list, name="models"),
    path("models/live/", views.live, name="models-live"),
    path("models/train", views.train, name="train"),
    path("models/runs/", views.run_list, name="training-runs"),
    path("models/runs/<int:pk>/cancel", views.run_cancel, name="training-cancel"),
    path("models/runs/<int:pk>/again", views.run_again, name="training-again"),
    path("models/studies/", tuning_views.study_list, name="studies"),
    path("models/studies/start", tuning_views.study_start, name="study-start"),
    path("models/studies/<int:pk>/", tuning_views.study_detail, name="study"),
    path("models/studies/<int:pk>/cancel", tuning_views.study_cancel, name="study-cancel"),
    path("models/weights/", weights_views.weights_list, name="weights"),
    path(
        "models/weights/<int:pk>/<slug:action>", weights_views.weights_change, name="weights-change"
    ),
    path("models/lines/<int:pk>/", line_views.line, name="model-line"),
    path("models/lines/<int:pk>/run/", line_views.line_run, name="line-run"),
    path("models/<int:pk>/", views.model_detail, name="model"),
    path("models/<int:pk>/shadow/", views.model_shadow, name="model-shadow"),
    path("models/<int:pk>/drift/", views.model_drift, name="model-drift"),
    path("models/<int:pk>/<slug:action>", views.model_change, name="model-change"),
]
