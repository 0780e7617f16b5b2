"""Kinds of receivers behind one interface: a new one is a file and a line here."""

from __future__ import annotations

from alerts.receivers.alertmanager import Alertmanager
from alerts.receivers.base import Field, Kind, Result, problems_of
from alerts.receivers.by_apprise import Apprise
from alerts.receivers.mail import Mail
from alerts.receivers.pagerduty import PagerDuty
from alerts.receivers.slack import Slack
from alerts.receivers.teams import Teams
from alerts.receivers.telegram import Telegram
from alerts.receivers.webhook import Webhook

KINDS: dict[str, Kind] = {
    kind.kind: kind
    for kind in (Mail(), Webhook(), Alertmanager(), PagerDuty(), Slack(), Teams(), Telegram(),
                 Apprise())
}  # fmt: skip

__all__ = ["KINDS", "Field", "Kind", "Result", "problems_of"]
