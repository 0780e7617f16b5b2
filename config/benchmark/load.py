"""The benchmark's events: seeded, one a second and series, in Vigil's own JSON form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

START_S = 1_704_110_400  # 2024-01-01T12:00:00Z
BLOCK = 50_000
VALUES = ("amps", "flow", "heat", "load", "pressure", "rpm", "temperature", "volt")
"""Of the wide events."""


def messages(events: int, series: int, seed: int = 5) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of ``events`` events that go round the series: noise, seasons, a few faults."""
    rng = np.random.default_rng(seed)
    names = [b"sensor_%06d" % s for s in range(series)]
    for first in range(0, events, BLOCK):
        i = np.arange(first, min(events, first + BLOCK))
        which = i % series
        t = i // series
        value = 50 + 12 * np.sin(t / 97 + which) + rng.normal(0, 2, len(i))
        value += np.where(rng.random(len(i)) < 2e-5, 60.0, 0.0)
        moments = (START_S + t).astype("datetime64[s]").astype(str)
        for s, x, moment in zip(which.tolist(), value.tolist(), moments.tolist(), strict=True):
            name = names[s]
            yield (
                name,
                b'{"source": "%b", "metric": "cpu_usage", "value": %b, "timestamp": "%bZ"}'
                % (name, b"%.3f" % x, moment.encode()),
            )


def wide_messages(events: int, sources: int, seed: int = 5) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of wide events that go round the sources: eight values that move together."""
    rng = np.random.default_rng(seed)
    names = [b"plant_%06d" % s for s in range(sources)]
    mix = rng.normal(0, 4, (3, len(VALUES)))
    inside = b", ".join(b'"%b": %%b' % name.encode() for name in VALUES)
    for first in range(0, events, BLOCK):
        i = np.arange(first, min(events, first + BLOCK))
        which, t = i % sources, i // sources
        hidden = np.sin(t[:, None] / np.array([97.0, 31.0, 11.0]) + which[:, None])
        value = 50 + hidden @ mix + rng.normal(0, 1, (len(i), len(VALUES)))
        odd = rng.random(len(i)) < 2e-5
        value[odd, 1] += 60.0
        moments = (START_S + t).astype("datetime64[s]").astype(str)
        for s, row, moment in zip(which.tolist(), value.tolist(), moments.tolist(), strict=True):
            name = names[s]
            body = inside % tuple(b"%.3f" % x for x in row)
            yield (
                name,
                b'{"source": "%b", "values": {%b}, "timestamp": "%bZ"}'
                % (name, body, moment.encode()),
            )
