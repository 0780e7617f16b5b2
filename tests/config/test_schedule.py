"""The scheduler's own process: what it sends is on the page at once, and so is its silence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask, PeriodicTasks

from anomalies import health
from config.schedule import SCHEDULE, ensure_schedule
from tests.integration.harness import ROOT, database_url

pytestmark = pytest.mark.django_db(transaction=True)


def said() -> health.Component:
    health.forget()
    return next(part for part in health.components() if part.name == "Scheduler")


@pytest.fixture
def beat() -> Iterator[subprocess.Popen[bytes]]:
    PeriodicTask.objects.all().delete()
    second, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(
        name="Tick", task="detection.tasks.look_after_training", interval=second,
        queue="nobody-reads", expire_seconds=1,
    )  # fmt: skip
    command = [sys.executable, "-m", "celery", "-A", "config", "beat", "--pidfile="]
    env = os.environ | {"DATABASE_URL": database_url()}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    yield process
    process.kill()
    process.wait()
    PeriodicTask.objects.all().delete()


def test_what_beat_sends_is_told_at_once(beat: subprocess.Popen[bytes]) -> None:
    assert (said().state, said().detail) == ("unknown", "no scheduled task was sent yet")
    deadline = time.monotonic() + 60
    while (found := said()).state == "unknown":
        assert beat.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found.state == "ok"
    assert found.detail.startswith("Tick was sent ")


def test_a_scheduler_that_fell_silent_is_told() -> None:
    PeriodicTask.objects.all().delete()
    assert sorted(ensure_schedule()) == sorted(item.name for item in SCHEDULE)
    silent = timezone.now() - timedelta(minutes=2)
    PeriodicTask.objects.filter(name="Look after training").update(last_run_at=silent)
    assert (said().state, said().detail) == ("warn", "Look after training was sent 2 min ago")
    PeriodicTasks.objects.all().delete()
    PeriodicTask.objects.all().delete()
