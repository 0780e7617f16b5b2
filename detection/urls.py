"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from detection import views

urlpatterns = [
    path("models/", views.model_list, name="models"),
    path("models/<int:pk>/shadow/", views.model_shadow, name="model-shadow"),
    path("models/<int:pk>/drift/", views.model_drift, name="model-drift"),
]
