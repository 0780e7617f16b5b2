"""Series names to small int codes within one process, and to their database ids."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

MAX_NAME = 255


class SeriesNameError(ValueError):
    """A source or metric name that can't be stored; the message says which and why."""


def check_name(role: str, name: str) -> None:
    """Refuse what PostgreSQL, a URL or a person could not handle.

    Raises:
        SeriesNameError: empty, too long, control characters, lone surrogates.
    """
    if not name.strip():
        raise SeriesNameError(f"{role} is empty")
    if len(name) > MAX_NAME:
        raise SeriesNameError(f"{role} has {len(name)} characters, {MAX_NAME} are allowed")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise SeriesNameError(f"{role} {name[:40]!r} has control characters or lone surrogates")


class SeriesIndex:
    """(source, metric) ↔ code for one stream; ``ids[code]`` is the database id, 0 until known.

    Codes are given in order of arrival and mean nothing outside this process. One thread gives
    codes while another may learn ids.
    """

    def __init__(self) -> None:
        self.codes: dict[tuple[str, str], int] = {}
        self.names: list[tuple[str, str]] = []
        self._ids = np.zeros(1024, dtype=np.int64)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Database ids by code, shape ``[len(self)]``; 0 where not stored yet."""
        return self._ids[: len(self.names)]

    def code(self, source: str, metric: str) -> int:
        """The series' code, a new one if needed.

        Raises:
            SeriesNameError: see :func:`check_name`.
        """
        known = self.codes.get((source, metric))
        if known is not None:
            return known
        check_name("source", source)
        check_name("metric", metric)
        with self._lock:
            code = len(self.names)
            if code >= len(self._ids):
                self._ids = np.concatenate([self._ids, np.zeros(len(self._ids), dtype=np.int64)])
            self.names.append((source, metric))
            self.codes[(source, metric)] = code
        return code

    def unstored(self) -> NDArray[np.intp]:
        """Codes that have no database id yet."""
        return np.flatnonzero(self.ids == 0)

    def learn_ids(self, codes: NDArray[np.intp], ids: NDArray[np.int64]) -> None:
        """Note the database ids of ``codes``."""
        with self._lock:
            self._ids[codes] = ids
