"""Background work of alerts."""

from __future__ import annotations

import logging

from celery import shared_task

from alerts import spending

log = logging.getLogger(__name__)


@shared_task(name="alerts.tasks.watch_budgets", ignore_result=True)
def watch_budgets() -> int:
    """Solve budgets anew and report what was overspent; returns how many were."""
    found = spending.watch()
    for one in found:
        log.warning("budget.overspent", extra={"of": one.name, "spent": one.spent,
                                               "budget": one.budget})  # fmt: skip
    return len(found)
