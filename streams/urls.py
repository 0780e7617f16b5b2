"""The addresses of this app."""

from __future__ import annotations

from django.urls import path

from streams import views

urlpatterns = [
    path("streams/", views.stream_list, name="streams"),
    path("streams/dead-letters/<int:pk>/", views.dead_letter, name="dead-letter"),
    path("streams/dead-letters/<int:pk>/dismiss", views.dismiss, name="dead-letter-dismiss"),
]
