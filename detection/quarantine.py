"""What the label *expected* teaches: an episode's values leave the online detector's quarantine,
and the other detectors of the series see nothing of the kind any more (`detection.expected`).

Releases are part of a scoring version, so each partition's log says from which offset on they
count. The engine applies them just before a series' first event under such a version and marks
the newest one in the series' state, so that a replay from any snapshot gives the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection import expected, heartbeat
from detection.base import IntArray, Settles
from detection.detectors import online
from detection.detectors.online import Released
from detection.registry import SERIES_DETECTORS
from detection.state import StateComponent, StateStore

NAME = "releases"
KEPT = 200
"""Releases that a scoring version carries, the newest of its stream."""


def component() -> StateComponent:
    """The newest release that a series' state has in it, 0 for none."""
    return StateComponent(NAME, 1, np.zeros(1))


@dataclass(frozen=True, slots=True)
class Release:
    """One episode; ``first`` and ``last`` are event numbers of its series, -1 where not known.

    ``values`` are the onset's and the peak's; ``partition`` is where the episode was, -1 for all.
    With ``pause_s`` it was no episode but a silence of that length.
    """

    id: int
    source: str
    metric: str
    partition: int = -1
    first: int = -1
    last: int = -1
    values: tuple[float, ...] = ()
    flat: bool = False
    pause_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For a scoring version's payload."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def of(cls, payload: Mapping[str, Any]) -> Self:
        """The release again."""
        return cls(**{**payload, "values": tuple(payload["values"])})


class Releases:
    """Those of one scoring version."""

    def __init__(self, releases: Sequence[Release] = ()) -> None:
        self._of: dict[tuple[str, str], list[Release]] = {}
        for release in sorted(releases, key=lambda r: r.id):
            self._of.setdefault((release.source, release.metric), []).append(release)
        self._newest = np.zeros(0)

    def __bool__(self) -> bool:
        return bool(self._of)

    def apply(
        self,
        store: StateStore,
        names: Sequence[tuple[str, str]],
        slot: IntArray,
        code: NDArray[np.int32],
        partition: NDArray[np.int32],
    ) -> None:
        """Before these events (their slots, series and partitions) are scored; each series once."""
        newest = self._newest_of(names)[code]
        if not newest.any():
            return
        marks = store.rows(NAME)
        due = np.flatnonzero(marks[slot, 0] < newest)
        _, first = np.unique(slot[due], return_index=True)
        for i in due[first].tolist():
            row = store.rows(online.OnlineDetector.component.name)[slot[i]]
            for release in self._of[names[code[i]]]:
                here = release.partition in (-1, int(partition[i]))
                if not here or release.id <= marks[slot[i], 0]:
                    continue
                if release.pause_s:
                    heartbeat.allow(store.rows(heartbeat.NAME)[slot[i]], 1e6 * release.pause_s)
                    continue
                released = online.release(
                    row,
                    release.first,
                    release.last,
                    np.array(release.values, dtype=np.float64),
                    flat=release.flat,
                )
                if released is not None:
                    _tell_others(store, int(slot[i]), released)
            marks[slot[i], 0] = newest[i]

    def _newest_of(self, names: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """The newest release of each series code, 0 for none; grows with the names."""
        known = len(self._newest)
        if known < len(names):
            more = [float(self._of[n][-1].id) if n in self._of else 0.0 for n in names[known:]]
            self._newest = np.concatenate([self._newest, np.array(more)])
        return self._newest


def _tell_others(store: StateStore, slot: int, released: Released) -> None:
    expected.add(
        store.rows(expected.NAME)[slot],
        released.values,
        released.radius,
        released.longest,
        released.equal,
    )
    for name, detector in SERIES_DETECTORS.items():
        if isinstance(detector, Settles) and store.in_use(name):
            detector.settle(store.rows(name)[slot])
