"""Up to which moment everything is known to be scored that the broker had of a partition by then.

The log's end is asked for, and the answer counts once the position has come there: so it is known
of a partition that never rests as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PATIENT_US = 30_000_000
"""After so long at one place the rest of the log holds no messages: marks of transactions."""


@dataclass(frozen=True, slots=True)
class Look:
    """A partition as the wall clock sees it: all that the broker had at ``at_us`` is scored.

    ``quiet_us`` is for how long the broker has answered, and ``version`` what counts now.
    """

    partition: int
    at_us: int
    quiet_us: int
    version: Any


@dataclass(frozen=True, slots=True)
class _Asked:
    end: int
    position: int
    at_us: int


@dataclass(slots=True)
class LogEnds:
    """Of the partitions of one topic; times are µs of the wall clock."""

    _asked: dict[int, _Asked] = field(default_factory=dict)
    _known: dict[int, int] = field(default_factory=dict)

    def heard(self, partition: int, end: int, position: int, at_us: int) -> None:
        """The log ended at ``end`` when we stood at ``position``, at this moment."""
        if end < 0:
            return
        asked = self._asked.get(partition)
        if asked is None or position >= asked.end:
            self.passed(partition, position)
            asked = self._asked[partition] = _Asked(end, position, at_us)
        stuck = (asked.end, asked.position) == (end, position)
        if stuck and at_us - asked.at_us >= PATIENT_US:
            self._known[partition] = at_us
        self.passed(partition, position)

    def passed(self, partition: int, position: int) -> None:
        """Everything before ``position`` is scored."""
        asked = self._asked.get(partition)
        if asked is not None and position >= asked.end:
            del self._asked[partition]
            self._known[partition] = max(asked.at_us, self._known.get(partition, 0))

    def known(self, partition: int) -> int | None:
        """The latest such moment."""
        return self._known.get(partition)

    def forget(self, partition: int) -> None:
        """The partition starts afresh."""
        self._asked.pop(partition, None)
        self._known.pop(partition, None)
