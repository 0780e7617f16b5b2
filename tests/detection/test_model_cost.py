"""What stored models cost in CPU time; `pytest -s tests/detection/test_model_cost.py` prints it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from detection.registry import MODEL_DETECTORS, compile_models
from detection.training import train

ROWS, BATCH, REPEATS = 50_000, 10_000, 5
MOST_US, MOST_FIT_S = 25.0, 20.0  # far above what is usual: machines differ, and are shared


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", sorted(MODEL_DETECTORS))
def test_a_model_is_cheap_to_train_and_to_ask(algorithm: str) -> None:
    compile_models()
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(ROWS, 10))
    train(algorithm, rows[:2_000], seed=1)  # imports scikit-learn
    began = time.process_time()
    trained = train(algorithm, rows, seed=1)
    fit_s = time.process_time() - began
    batch, took = rng.normal(size=(BATCH, 10)), []
    for _ in range(REPEATS):
        began = time.process_time()
        trained.detector.oddness(batch)
        took.append(time.process_time() - began)
    us = 1e6 * min(took) / BATCH
    print(
        f"\n{algorithm}: {us:.2f} µs an event in batches of {BATCH:,}, "
        f"{fit_s:.2f} s to train on {ROWS:,} rows, {len(trained.payload):,} bytes"
    )
    assert us <= MOST_US
    assert fit_s <= MOST_FIT_S
