"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from streams import letter_views, settings_views, views

urlpatterns = [
    path("settings/", settings_views.your_settings, name="your-settings"),
    path("streams/", views.stream_list, name="streams"),
    path("streams/dead-letters/handle", letter_views.handle, name="dead-letters-handle"),
    path("streams/dead-letters/<int:pk>/", letter_views.dead_letter, name="dead-letter"),
    path("streams/<str:name>/", views.stream_detail, name="stream"),
]
