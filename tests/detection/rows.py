"""Rows that stored models are trained on and asked about."""

from __future__ import annotations

import numpy as np

from detection.base import FloatArray


def cloud(n: int, k: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(n, k))


def probes(k: int, seed: int = 1) -> FloatArray:
    """Inside, at the edge, far off."""
    rows = cloud(600, k, seed)
    rows[::3] *= 3.0
    rows[::50] *= 1e4
    return rows
