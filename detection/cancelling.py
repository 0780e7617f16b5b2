"""What a person is told who asked for the end of a training or a study."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest

from detection.errors import TransitionRefused
from detection.models import Study, TrainingRun


def ask_for_end(request: HttpRequest, name: str, cancel: Callable[[], TrainingRun | Study]) -> None:
    """Call ``cancel``, and say what came of it."""
    try:
        row = cancel()
    except TransitionRefused as error:
        messages.warning(request, f"{error}.")
        return
    ended = row.status in (TrainingRun.Status.CANCELLED, Study.Status.CANCELLED)
    messages.success(request, f"{name} {'is cancelled' if ended else 'ends within seconds'}.")
