"""What every registered detector promises; a new one is found here by its registry line."""

from __future__ import annotations

import numpy as np
import pytest

from detection.base import FloatArray, ModelDetector, ScoringInput, SeriesDetector
from detection.features import FEATURE_NAMES
from detection.registry import (
    MODEL_DETECTORS,
    SERIES_DETECTORS,
    create_series_detector,
    model_detector,
)
from detection.state import StateStore
from tests.detection import series

SERIES, EVENTS = 5, 900


def interleaved(store: StateStore, n: int = SERIES * EVENTS) -> ScoringInput:
    """Several series mixed at random, each in its own order."""
    rng = np.random.default_rng(11)
    slots = store.allocate(SERIES)
    which = rng.integers(0, SERIES, n)
    value = rng.normal(0, 1, n) + 3.0 * which
    value[rng.integers(0, n, 40)] += 25.0
    return ScoringInput(slots[which], series.regular(n, 60), value)


def fresh(name: str) -> tuple[SeriesDetector, StateStore]:
    detector = create_series_detector(name)
    return detector, StateStore([detector.component])


def run(detector: SeriesDetector, store: StateStore, inputs: ScoringInput) -> FloatArray:
    return detector.score(store.rows(detector.component.name), inputs)


@pytest.fixture(params=sorted(SERIES_DETECTORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_series_detector_follows_the_protocol(name: str) -> None:
    detector, _ = fresh(name)
    assert isinstance(detector, SeriesDetector)
    assert detector.name == name


def test_input_stays_intact_and_oddness_is_never_negative(name: str) -> None:
    detector, store = fresh(name)
    inputs = interleaved(store)
    before = [array.copy() for array in (inputs.slot, inputs.epoch_s, inputs.value)]
    for given in (inputs.slot, inputs.epoch_s, inputs.value):
        given.setflags(write=False)
    oddness = run(detector, store, inputs)
    for now, copy in zip((inputs.slot, inputs.epoch_s, inputs.value), before, strict=True):
        np.testing.assert_array_equal(now, copy)
    assert oddness.shape == (len(inputs),)
    known = oddness[~np.isnan(oddness)]
    assert len(known) > len(oddness) / 2
    assert (known >= 0).all()
    assert np.isfinite(known).all()
    assert (known >= 1.0).any()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_batch_borders_change_no_bit(name: str, size: int) -> None:
    detector, store = fresh(name)
    whole = run(detector, store, interleaved(store))
    other, second = fresh(name)
    inputs = interleaved(second)
    parts = [
        run(other, second, inputs.part(at, at + size)).copy() for at in range(0, len(inputs), size)
    ]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    slots = np.arange(SERIES)
    assert store.pack(slots) == second.pack(slots)


def test_interleaved_series_equal_separate_ones(name: str) -> None:
    detector, store = fresh(name)
    inputs = interleaved(store)
    together = run(detector, store, inputs)
    for slot in range(SERIES):
        mine = inputs.slot == slot
        alone, _ = series.score_alone(
            create_series_detector(name), inputs.epoch_s[mine], inputs.value[mine]
        )
        assert together[mine].tobytes() == alone.tobytes()


def test_packed_state_goes_on_elsewhere_bit_for_bit(name: str) -> None:
    detector, store = fresh(name)
    inputs = interleaved(store)
    half = len(inputs) // 2
    run(detector, store, inputs.part(0, half))
    rows = store.pack(np.arange(SERIES))
    wanted = run(detector, store, inputs.part(half, len(inputs)))

    other, second = fresh(name)
    second.allocate(70)
    moved = second.allocate(SERIES)
    second.unpack(moved, rows, store.layout_id)
    rest = inputs.part(half, len(inputs))
    found = run(other, second, ScoringInput(moved[rest.slot], rest.epoch_s, rest.value))
    assert found.tobytes() == wanted.tobytes()


def test_memory_of_a_series_is_bounded(name: str) -> None:
    detector, store = fresh(name)
    inputs = interleaved(store)
    run(detector, store, inputs)
    assert store.row_bytes == 8 * detector.component.width <= 16 * 1024
    assert detector.component.initial.shape == (detector.component.width,)


def test_a_slot_outside_the_state_is_refused(name: str) -> None:
    detector, store = fresh(name)
    wrong = np.array([store.capacity], dtype=np.int64)
    with pytest.raises(IndexError):
        run(detector, store, ScoringInput(wrong, wrong, np.zeros(1)))


def test_no_events_give_no_scores(name: str) -> None:
    detector, store = fresh(name)
    inputs = interleaved(store).part(0, 0)
    assert len(run(detector, store, inputs)) == 0


def history(n: int = 4000, seed: int = 5) -> FloatArray:
    """Feature rows of normal events."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (n, len(FEATURE_NAMES)))
    rows[:, 5:9] = np.minimum(np.abs(rows[:, 5:9]) / 3, 10.0)
    rows[:, 4] = 0.0
    return rows


@pytest.fixture(params=sorted(MODEL_DETECTORS))
def model(request: pytest.FixtureRequest) -> ModelDetector:
    return model_detector(str(request.param)).fit(history(), seed=1)


def test_model_follows_the_protocol_and_leaves_its_input(model: ModelDetector) -> None:
    assert isinstance(model, ModelDetector)
    rows = history(200)
    rows.setflags(write=False)
    oddness = model.oddness(rows)
    assert oddness.shape == (200,)
    assert (oddness >= 0).all()
    assert np.isfinite(oddness).all()


def test_model_scores_each_row_on_its_own(model: ModelDetector) -> None:
    rows = history(1500, seed=9)
    whole = model.oddness(rows)
    for size in (1, 7, 1000):
        some = range(0, 300 if size < 1000 else 1500, size)
        parts = np.concatenate([model.oddness(rows[at : at + size]) for at in some])
        assert parts.tobytes() == whole[: len(parts)].tobytes()


def test_model_finds_what_is_far_off(model: ModelDetector) -> None:
    normal, odd = history(500, seed=8), np.full((1, len(FEATURE_NAMES)), 9.0)
    assert (model.oddness(normal) < 1.0).mean() > 0.99
    assert model.oddness(odd)[0] > 1.0


def test_model_abstains_where_a_feature_is_unknown(model: ModelDetector) -> None:
    rows = history(3)
    rows[1, 2] = np.nan
    assert np.isnan(model.oddness(rows)).tolist() == [False, True, False]


def test_model_comes_back_from_its_arrays(model: ModelDetector) -> None:
    again = type(model).from_arrays(model.arrays())
    rows = history(500, seed=3)
    assert again.oddness(rows).tobytes() == model.oddness(rows).tobytes()


def test_training_follows_the_seed(model: ModelDetector) -> None:
    same, other = (type(model).fit(history(), seed=seed) for seed in (1, 2))
    rows = history(500, seed=3)
    assert same.oddness(rows).tobytes() == model.oddness(rows).tobytes()
    assert type(other) is type(model)
