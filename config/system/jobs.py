"""Processes with their signs of life, and the scheduled jobs with when they ran and will run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django_celery_beat.models import PeriodicTask

from streams.heartbeat import GONE_AFTER
from streams.models import ConsumerStatus, Process

SHOWN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Running:
    """A process: `gone` without a sign, `other_version` beside another one's code."""

    process: Process
    gone: bool
    doing: str


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    task: str
    every: str
    last: datetime | None
    next: datetime | None
    late: bool
    enabled: bool
    runs: int


def processes(now: datetime) -> list[Running]:
    """Those that gave a sign within ten minutes, by kind."""
    said = {
        row.instance: row for row in ConsumerStatus.objects.filter(beat_at__gte=now - SHOWN)
    }  # fmt: skip
    found = []
    for process in Process.objects.filter(beat_at__gte=now - SHOWN).order_by("kind", "host", "pid"):
        doing = process.doing
        name = doing.partition(" reads ")[0]
        if process.kind == Process.Kind.CONSUMER and (row := said.get(name)) is not None:
            doing = f"{doing}: {row.events_per_s:,.0f} events/s, {row.lag:,} behind"
            if row.state != "running":
                doing = f"{row.state}; {doing}"
        found.append(Running(process, now - process.beat_at > GONE_AFTER, doing))
    return found


def versions(running: list[Running]) -> set[str]:
    return {one.process.version for one in running if not one.gone}


def jobs(now: datetime) -> list[Job]:
    found = []
    for task in PeriodicTask.objects.exclude(name__startswith="celery.").select_related(
        "interval", "crontab"
    ).order_by("name"):  # fmt: skip
        upcoming = None
        if task.enabled and (task.interval or task.crontab):
            since = task.last_run_at or task.date_changed or now
            upcoming = now + task.schedule.remaining_estimate(since)
        period = (
            task.interval.schedule.run_every if task.interval else timedelta(days=1)
        )  # fmt: skip
        found.append(Job(
            name=task.name, task=task.task, every=_every(task), last=task.last_run_at,
            next=max(upcoming, now) if upcoming else None,
            late=upcoming is not None and now - upcoming > period + timedelta(minutes=2),
            enabled=task.enabled, runs=task.total_run_count,
        ))  # fmt: skip
    return found


def _every(task: PeriodicTask) -> str:
    if task.interval:
        seconds = task.interval.schedule.run_every.total_seconds()
        if seconds % 3_600 == 0:
            return f"each {seconds / 3_600:.0f} h"
        return f"each {seconds / 60:.0f} min" if seconds % 60 == 0 else f"each {seconds:.0f} s"
    if task.crontab:
        minute, hour = str(task.crontab.minute), str(task.crontab.hour)
        zone = task.crontab.timezone
        if hour == "*":
            return f"hourly, minute {minute}"
        return f"daily, {hour.zfill(2)}:{minute.zfill(2)} {zone}"
    return "–"
