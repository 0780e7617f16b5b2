"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from detection import views

urlpatterns = [path("models/", views.model_list, name="models")]
