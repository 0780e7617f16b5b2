"""The first schedule of the background tasks; from then on the admin's to edit."""

from __future__ import annotations

from dataclasses import dataclass

from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A task by its name, each `every_s` seconds or at `cron` (minute hour, UTC)."""

    name: str
    task: str
    queue: str
    every_s: int | None = None
    cron: str | None = None
    enabled: bool = True


SCHEDULE = (
    Scheduled("Train models", "detection.tasks.train_models", "training", every_s=60),
    Scheduled("Look after training", "detection.tasks.look_after_training", "default", every_s=10),
    Scheduled("Judge challengers", "detection.tasks.judge_challengers", "training", every_s=600),
    Scheduled("Watch champions", "detection.tasks.watch_champions", "default", every_s=30),
    Scheduled("Measure drift", "detection.tasks.measure_drift", "default", cron="7 *"),
    Scheduled("Complete evidence", "anomalies.tasks.complete_evidence", "default", every_s=15),
    Scheduled("Roll up hours", "streams.tasks.roll_up_hours", "default", every_s=120),
    Scheduled("Watch alert budgets", "alerts.tasks.watch_budgets", "alerts", cron="41 5"),
    Scheduled("Apply retention", "anomalies.tasks.apply_retention", "default", cron="17 3"),
)


def ensure_schedule(schedule: tuple[Scheduled, ...] = SCHEDULE) -> list[str]:
    """Adds the tasks that are not there yet and returns their names; rows that exist stay as
    they are, since somebody may have edited them."""
    present = set(
        PeriodicTask.objects.filter(name__in=[item.name for item in schedule]).values_list(
            "name", flat=True
        )
    )
    added = [item for item in schedule if item.name not in present]
    for item in added:
        _add(item)
    return [item.name for item in added]


def _add(item: Scheduled) -> None:
    task = PeriodicTask(name=item.name, task=item.task, queue=item.queue, enabled=item.enabled)
    if item.cron is not None:
        minute, hour = item.cron.split()
        task.crontab, _ = CrontabSchedule.objects.get_or_create(
            minute=minute, hour=hour, day_of_week="*", day_of_month="*", month_of_year="*",
            timezone="UTC",
        )  # fmt: skip
    elif item.every_s is not None:
        task.interval, _ = IntervalSchedule.objects.get_or_create(
            every=item.every_s, period=IntervalSchedule.SECONDS
        )
    task.save()
