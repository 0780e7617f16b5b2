"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from streams import settings_views, views

urlpatterns = [
    path("settings/", settings_views.your_settings, name="your-settings"),
    path("streams/", views.stream_list, name="streams"),
    path("streams/dead-letters/<int:pk>/", views.dead_letter, name="dead-letter"),
    path("streams/dead-letters/<int:pk>/dismiss", views.dismiss, name="dead-letter-dismiss"),
]
