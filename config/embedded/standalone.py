"""All on one machine: the embedded servers, then web, consumer, worker, beat and a source."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from types import FrameType

from config.addresses import without_password
from config.embedded.errors import EmbeddedError
from config.embedded.ports import answers, next_free_port
from config.embedded.stack import EmbeddedStack, unnamed_parts
from config.embedded.state import DataFolderBusyError
from config.embedded.supervisor import Console, Service, Supervisor

SOURCES = ("demo", "none")


@dataclass(frozen=True, slots=True)
class Place:
    """Where it all runs."""

    project: Path
    data: Path
    host: str
    port: int
    input_topic: str


def services(source: str, place: Place, port: int) -> list[Service]:
    """What runs beside the servers; the source and the schedule stop first, the rest together."""
    manage = [sys.executable, "manage.py"]
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "config"]
    found = [
        Service("web", [sys.executable, "-m", "daphne", "-v", "0", "-b", place.host,
                        "-p", str(port), "--no-server-name", "config.asgi:application"]),
        Service("consumer", [*manage, "runconsumer"]),
        Service("alerts", [*manage, "runalerts"]),
        # One task at a time on one thread: training must not slow the consumer down.
        Service("worker", [*celery, "worker", "-Q", "training,alerts,default", "--concurrency", "1",
                           "--without-gossip", "--without-mingle", "--loglevel", "WARNING"],
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        Service("beat", [*celery, "beat", "--pidfile=", "--loglevel", "WARNING", "--scheduler",
                         "django_celery_beat.schedulers:DatabaseScheduler"], stage=0),
    ]  # fmt: skip
    if source == "demo":
        found.append(Service("demo", [*manage, "produce", "demo"], stage=0, may_finish=True))
    return found


def run(source: str, place: Place, named: Iterable[str], environ: Mapping[str, str]) -> None:
    """Starts everything and stays until Ctrl-C or SIGTERM. Raises `EmbeddedError`."""
    began = time.monotonic()
    console = Console(sys.stdout, environ)
    port = next_free_port(place.port, place.host)
    if port is None:
        raise EmbeddedError(
            f"No free port from {place.port} on for {place.host}. Set VIGIL_DASHBOARD__PORT."
        )
    parts = unnamed_parts(named)
    stack = EmbeddedStack(place.data, parts=parts, say=lambda text: console.line("vigil", text))
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        console.line("vigil", f"starting {', '.join(parts) or 'beside servers of your own'} …")
        stack.start()
        env = _environment(environ, stack, place, port)
        login = _bootstrap(source, env, place, console)
        stack.publish({"web": _address(place.host, port)})
        supervisor = Supervisor(
            stack.nursery,
            services(source, place, port),
            env=env,
            cwd=place.project,
            console=console,
            each_round=_Round(stack, console, place, port, login, began),
        )
        supervisor.run()
    except DataFolderBusyError:
        raise EmbeddedError(_already_running(stack)) from None
    except KeyboardInterrupt:
        console.line("vigil", "interrupted while starting …")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.stop()
    console.line("vigil", f"stopped; the data stays in {_short(place.data, place.project)}")


class _Round:
    """What is looked at between two readings of the log: the servers, and whether the web is up."""

    def __init__(
        self,
        stack: EmbeddedStack,
        console: Console,
        place: Place,
        port: int,
        login: str,
        began: float,
    ) -> None:
        self._stack = stack
        self._console = console
        self._place = place
        self._port = port
        self._login = login
        self._began = began
        self._greeted = False

    def __call__(self) -> None:
        for name in self._stack.revive():
            self._console.line("vigil", f"{name} ended; it was started again")
        if not self._greeted and answers(self._port, timeout_s=0.1):
            self._greeted = True
            self._greet()

    def _greet(self) -> None:
        place, env = self._place, self._stack.env
        lines = [
            f"Vigil runs at  {_address(place.host, self._port)}   "
            f"(after {time.monotonic() - self._began:.0f} s)",
            f"Log in as      {self._login}",
        ]
        if self._port != place.port:
            lines.insert(1, f"               port {place.port} is taken, this is the next free one")
        if kafka := env.get("KAFKA_BOOTSTRAP_SERVERS"):
            lines.append(f"Send events    to Kafka {kafka}, topic {place.input_topic}")
        lines += [
            "Other commands find it: .venv/bin/python manage.py produce file data.csv",
            f"Stop           Ctrl-C; the data stays in {_short(place.data, place.project)}",
        ]
        rule = "─" * max(len(line) for line in lines)
        for line in (rule, *lines, rule):
            self._console.line("vigil", line)


def _environment(
    environ: Mapping[str, str], stack: EmbeddedStack, place: Place, port: int
) -> dict[str, str]:
    env = {**environ, **stack.env}
    env["VIGIL_DATA_DIR"] = str(place.data)
    env["VIGIL_DASHBOARD__PORT"] = str(port)
    env["PYTHONUNBUFFERED"] = "1"
    # In a container everything runs as root; ten lines about it would hide what matters.
    env.setdefault("PYTHONWARNINGS", "ignore:You're running the worker with superuser")
    if not os.access(place.project, os.W_OK):
        # numba keeps what it compiled beside the source where it can.
        env.setdefault("NUMBA_CACHE_DIR", str(place.data / "numba"))
    if stack.env:
        env["VIGIL_EMBEDDED"] = "1"
    return env


def _bootstrap(source: str, env: Mapping[str, str], place: Place, console: Console) -> str:
    """Runs `manage.py bootstrap` and returns how to log in."""
    process = Popen(
        [sys.executable, "manage.py", "bootstrap", *(["--demo"] if source == "demo" else [])],
        env=dict(env), cwd=place.project, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True,
    )  # fmt: skip
    said, _ = process.communicate()
    login = ""
    for line in said.splitlines():
        if line.startswith("login: "):
            login = line.removeprefix("login: ")
        elif process.returncode != 0:
            console.line("vigil", without_password(line))
    if process.returncode != 0:
        raise EmbeddedError("The database or the topics could not be prepared; see above.")
    return login


def _already_running(stack: EmbeddedStack) -> str:
    state = stack.folder.running() or {}
    where = state.get("web") or "this data folder"
    return (
        f"Vigil already runs at {where} (process {state.get('pid', 'unknown')}, data in "
        f"{stack.folder.path}). Use that one, stop it with Ctrl-C where it runs, or give this "
        "one a data folder of its own in VIGIL_DATA_DIR."
    )


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104  (only shown)
    return f"http://{shown}:{port}"


def _short(path: Path, project: Path) -> str:
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
