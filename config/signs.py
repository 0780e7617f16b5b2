"""Signs of life of the processes that others' servers run: web, workers, the scheduler."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from celery import signals

# Django is not set up yet where Celery imports this: models are imported once a process runs.
App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
_running: list[Any] = []


def of_web(app: App) -> App:
    """The application, which with its first connection begins to give signs."""

    async def signing(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # Tests call the application in their own process, whose database is not to be written.
        if not _running and "pytest" not in sys.modules:
            _begin("web", lambda: "serves pages, the API and live updates")
        await app(scope, receive, send)

    return signing


@signals.worker_ready.connect
def _worker(**_: Any) -> None:
    from celery.worker import state

    def doing() -> str:
        names = sorted(request.name.rpartition(".")[2] for request in state.active_requests)
        return f"runs {', '.join(names)}" if names else "waits for tasks"

    _begin("worker", doing)


@signals.beat_init.connect
def _beat(**_: Any) -> None:
    _begin("scheduler", lambda: "sends scheduled tasks")


def _begin(kind: str, doing: Callable[[], str]) -> None:
    from streams.heartbeat import Heartbeat
    from streams.models import Process

    sign = Heartbeat(Process.Kind(kind), doing).start()
    _running.append(sign)
    atexit.register(sign.stop)
