"""Publishes each change of an incident on the topic of alerts: at least once, with stable ids.

The rows are the memory: one counts as published once the broker has it. Messages of one incident
have its id as their key, so they keep their order; ``message_id`` tells a repeat.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec
from django.db import DatabaseError, connection
from django.utils import timezone

from alerts.models import IncidentMessage
from streams.errors import StreamsError
from streams.producer import TopicProducer

log = logging.getLogger(__name__)

MOST = 500
PAUSE_S = 0.5
RETRY_S = 5.0


class Announcer:
    """Sends what waits, from a thread of its own: a broker that is gone holds no rule up.

    Args:
        producer: makes a producer; called in the thread.
        leads: whether this process is the one that sends; two would only repeat each other.
    """

    def __init__(
        self, producer: Callable[[], TopicProducer], topic: str, leads: Callable[[], bool]
    ) -> None:
        self._make, self._topic, self._leads = producer, topic, leads
        self._producer: TopicProducer | None = None

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set."""
        while not stop.is_set():
            pause = PAUSE_S
            try:
                if self._leads() and self.publish() == MOST:
                    pause = 0.0
            except (StreamsError, DatabaseError) as error:
                log.warning("alerts.not_published error=%s", " ".join(str(error).split())[:300])
                connection.close()
                pause = RETRY_S
            stop.wait(pause)
        connection.close()

    def publish(self) -> int:
        """Send what waits, the oldest first, and mark it; returns how many.

        Raises:
            DeliveryError: the broker did not take all; they are sent again.
        """
        rows = list(
            IncidentMessage.objects.filter(published_at=None)
            .select_related("incident").order_by("id")[:MOST]
        )  # fmt: skip
        if not rows:
            return 0
        if self._producer is None:
            self._producer = self._make()
        for row in rows:
            key = str(row.incident.key).encode()
            self._producer.send(self._topic, msgspec.json.encode(row.payload), key)
        self._producer.flush(10.0)
        IncidentMessage.objects.filter(pk__in=[r.pk for r in rows]).update(
            published_at=timezone.now()
        )
        return len(rows)
