"""What every registered detector promises; a new one is found here by its registry line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detection import artefact
from detection.base import FloatArray, ModelDetector, ScoringInput, SeriesDetector
from detection.detectors.distance_kernels import log_kernel_sums, neighbours, outlier_factors
from detection.detectors.isolation_forest import _path_lengths
from detection.errors import ArtefactIncompatible, NotEnoughData
from detection.features import FEATURE_NAMES
from detection.registry import (
    MODEL_DETECTORS,
    SERIES_DETECTORS,
    compile_models,
    create_series_detector,
    model_detector,
)
from detection.state import StateStore
from detection.training import restore, train
from tests.detection import series

SERIES, EVENTS = 5, 900


def interleaved(store: StateStore, n: int = SERIES * EVENTS) -> ScoringInput:
    """Several series mixed at random, each in its own order; two months, spikes, then a shift."""
    rng = np.random.default_rng(11)
    slots = store.allocate(SERIES)
    which = rng.integers(0, SERIES, n)
    value = rng.normal(0, 1, n) + 3.0 * which
    value[rng.integers(0, n, 40)] += 25.0
    value[n * 9 // 10 :] += 25.0
    return ScoringInput(slots[which], series.regular(n, 1200), value)


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


def test_it_abstains_until_it_knows_the_series(name: str) -> None:
    detector, _ = fresh(name)
    value = np.random.default_rng(2).normal(0, 1, 3000)
    oddness, _ = series.score_alone(detector, series.regular(3000, 60), value)
    unknown = np.isnan(oddness)
    assert unknown[:10].all(), "nobody can judge the first events"
    assert not unknown[-1]


def test_an_event_is_judged_before_it_is_learnt(name: str) -> None:
    """What comes later, the event's own neighbours in the batch included, changes no bit."""
    detector, _ = fresh(name)
    rng = np.random.default_rng(3)
    epoch, value = series.regular(1200, 60), rng.normal(0, 1, 1200)
    value[700:710] += 30.0
    whole, _ = series.score_alone(detector, epoch, value)
    for end in (1, 31, 151, 701, 706, 1200):
        other = np.concatenate([value[:end], np.full(40, 1e3)])
        prefix, _ = series.score_alone(
            create_series_detector(name), series.regular(end + 40, 60), other
        )
        assert prefix[:end].tobytes() == whole[:end].tobytes()


def test_farther_out_is_not_less_odd(name: str) -> None:
    value = np.random.default_rng(4).normal(100.0, 1.0, 1001)
    ends = []
    for side in (-1.0, 1.0):
        oddness = []
        for distance in (0.0, 4.0, 8.0, 16.0, 64.0, 1024.0):
            value[1000] = 100.0 + side * distance
            found, _ = series.score_alone(
                create_series_detector(name), series.regular(1001, 1200), value
            )
            oddness.append(found[1000])
        assert (np.diff(oddness[1:]) >= 0).all(), oddness
        ends.append(oddness[-1])
    assert max(ends) >= oddness[0]  # to a chart of recent values one side may be the way back


def test_two_of_a_kind_are_equal(name: str) -> None:
    """Nothing is drawn at random: a detector has no seed, and needs none."""
    value = np.random.default_rng(7).normal(0, 1, 2000)
    one, other = (
        series.score_alone(create_series_detector(name), series.regular(2000, 60), value)[0]
        for _ in range(2)
    )
    assert one.tobytes() == other.tobytes()


# Models: in the feature space of series, and for wide events of any width.

# Of forests trained before these were kept; alone they are no longer asked for.
EXPLAINING = ("leaf_rows", "normal")
WIDTHS = (1, 3, len(FEATURE_NAMES), 40)


def history(n: int = 6000, columns: int = len(FEATURE_NAMES), seed: int = 5) -> FloatArray:
    """Rows of normal events; of ten columns, one that never moves and some of one sign."""
    rows = np.random.default_rng(seed).normal(0, 1, (n, columns))
    if columns == len(FEATURE_NAMES):
        rows[:, 5:9] = np.minimum(np.abs(rows[:, 5:9]) / 3, 10.0)
        rows[:, 4] = 0.0
    return rows


@pytest.fixture(params=sorted(MODEL_DETECTORS))
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def fitted() -> dict[tuple[str, int], ModelDetector]:
    return {}


@pytest.fixture(params=WIDTHS)
def model(
    request: pytest.FixtureRequest,
    algorithm: str,
    fitted: dict[tuple[str, int], ModelDetector],
) -> ModelDetector:
    key = (algorithm, int(request.param))
    if key not in fitted:
        fitted[key] = model_detector(algorithm).fit(history(columns=key[1]), seed=1)
    return fitted[key]


def test_model_follows_the_protocol_and_leaves_its_input(
    model: ModelDetector, algorithm: str
) -> None:
    assert isinstance(model, ModelDetector)
    assert model.name == algorithm
    rows = history(200, model.columns)
    before = rows.copy()
    rows.setflags(write=False)
    oddness = model.oddness(rows)
    assert oddness.shape == (200,)
    assert (oddness >= 0).all()
    assert np.isfinite(oddness).all()
    assert model.contributions(rows).shape == model.nearest(rows).shape == rows.shape
    np.testing.assert_array_equal(rows, before)


def test_model_scores_each_row_on_its_own(model: ModelDetector) -> None:
    rows = history(1500, model.columns, seed=9)
    rows[::5] *= 4.0
    for said in (model.oddness, model.contributions, model.nearest):
        whole = said(rows)
        for size in (1, 7, 1000):
            some = range(0, 300 if size < 1000 else 1500, size)
            parts = np.concatenate([said(rows[at : at + size]) for at in some])
            assert parts.tobytes() == whole[: len(parts)].tobytes()


def test_model_scores_no_rows(model: ModelDetector) -> None:
    none = np.zeros((0, model.columns))
    assert model.oddness(none).shape == (0,)
    assert model.contributions(none).shape == model.nearest(none).shape == none.shape


def test_model_finds_what_is_far_off(model: ModelDetector) -> None:
    normal, odd = history(500, model.columns, seed=8), np.full((1, model.columns), 9.0)
    assert (model.oddness(normal) < 1.0).mean() > 0.99
    assert model.oddness(odd)[0] >= np.quantile(model.oddness(normal), 0.99)
    if model.columns > 1:  # to a forest the end of a single column is hardly odder than a gap
        assert model.oddness(odd)[0] > 1.0


def test_model_finds_what_is_farther_out_not_less_odd(model: ModelDetector) -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        way = rng.choice((-1.0, 1.0), model.columns) * rng.uniform(0.5, 1.0, model.columns)
        rows = np.array([r * way for r in (0.0, 8.0, 16.0, 32.0, 64.0, 1e3, 1e5, 1e12, 1e300)])
        oddness = model.oddness(rows)
        assert np.isfinite(oddness).all()
        assert (np.diff(oddness[1:]) >= -1e-9).all()
        assert oddness[1] > oddness[0]


def test_model_abstains_where_a_number_is_unknown(model: ModelDetector) -> None:
    rows = np.full((3, model.columns), 8.0)
    rows[1, -1] = np.nan
    assert np.isnan(model.oddness(rows)).tolist() == [False, True, False]
    assert not model.contributions(rows)[1].any()
    assert np.isnan(model.nearest(rows)[1]).all()
    assert np.isfinite(model.nearest(rows)[::2]).all()


def test_model_refuses_rows_of_another_width(model: ModelDetector) -> None:
    rows = np.zeros((2, model.columns + 1))
    for said in (model.oddness, model.contributions, model.nearest):
        with pytest.raises(ValueError, match="need"):
            said(rows)


def test_shares_sum_to_one_or_the_row_is_not_odd(model: ModelDetector) -> None:
    rows = history(400, model.columns, seed=4)
    rows[:200] *= 5.0
    shares = model.contributions(rows)
    total = shares.sum(axis=1)
    assert (shares >= 0).all()
    assert (np.isclose(total, 1.0) | (total == 0.0)).all()
    clearly = model.oddness(rows) >= 1.0
    assert np.isclose(total[clearly], 1.0).all()


def test_the_one_odd_column_has_the_largest_share(model: ModelDetector) -> None:
    usual = history(200, model.columns, seed=12)
    usual = usual[np.argsort(model.oddness(usual))[:20]]
    moving = [c for c in range(model.columns) if np.ptp(usual[:, c]) > 0]
    found, odd = 0, 0
    for column in moving:
        for side in (-12.0, 12.0):
            rows = usual.copy()
            rows[:, column] = side
            shares = model.contributions(rows)
            told = shares.sum(axis=1) > 0
            odd += int(told.sum())
            found += int((shares.argmax(axis=1) == column)[told].sum())
    assert found >= 0.99 * odd
    # The more columns, the seldomer a forest asks for each: then one alone makes no row odd.
    least = 0.9
    if model.name == "isolation_forest" and model.columns > 3:
        least = 0.6 if model.columns <= 10 else 0.02
    assert odd >= least * 2 * len(moving) * len(usual)


def test_nearest_is_a_row_of_the_history_and_normal(model: ModelDetector) -> None:
    rows = history(columns=model.columns)
    asked = history(100, model.columns, seed=13)
    asked[50:] *= 5.0
    found = model.nearest(asked)
    known = {row.tobytes() for row in rows}
    assert all(row.tobytes() in known for row in found)
    assert (model.oddness(found) < 1.0).all()
    near = np.linalg.norm(found - asked, axis=1)
    assert np.median(near[:50]) < np.median(near[50:])


def test_artefact_round_trips_and_is_small(algorithm: str) -> None:
    for columns in WIDTHS:
        names = [f"c{i}" for i in range(columns)]
        trained = train(algorithm, history(2000, columns), seed=3, columns=names, space="vector")
        again, manifest = restore(trained.payload, trained.sha256)
        assert manifest["feature_names"] == names
        rows = history(300, columns, seed=3)
        for said in ("oddness", "contributions", "nearest"):
            wanted = getattr(trained.detector, said)(rows)
            assert getattr(again, said)(rows).tobytes() == wanted.tobytes()
        assert len(trained.payload) <= 600_000 + 20_000 * columns


def test_a_loaded_model_finds_its_kernels_compiled(algorithm: str) -> None:
    compile_models()
    before = signatures()
    trained = train(algorithm, history(2000), seed=3)
    model, _ = restore(trained.payload, trained.sha256)
    rows = history(10)
    rows.setflags(write=False)
    model.oddness(rows)
    assert signatures() == before


def signatures() -> dict[str, int]:
    """How often each kernel that scores stored models was compiled in this process."""
    kernels: tuple[Any, ...] = (_path_lengths, neighbours, outlier_factors, log_kernel_sums)
    return {kernel.__name__: len(kernel.signatures) for kernel in kernels}


def test_training_follows_the_seed(algorithm: str) -> None:
    one, same, other = (train(algorithm, history(), seed=seed) for seed in (1, 1, 2))
    assert one.payload == same.payload
    arrays, changed = (artefact.load(made.payload, made.sha256)[0] for made in (one, other))
    assert any(arrays[name].tobytes() != changed[name].tobytes() for name in arrays)


def test_training_cost_is_bounded_whatever_the_history(algorithm: str) -> None:
    small, large = (train(algorithm, history(n), seed=1) for n in (6_000, 24_000))
    assert len(large.payload) < 1.2 * len(small.payload)


def test_too_little_history_says_so(algorithm: str) -> None:
    with pytest.raises(NotEnoughData, match="few"):
        model_detector(algorithm).fit(history(200), seed=1)


def test_every_array_that_scores_is_asked_for(algorithm: str) -> None:
    detector = model_detector(algorithm).fit(history(1000, 3), seed=1)
    arrays = detector.arrays()
    for name in arrays:
        rest = {key: array for key, array in arrays.items() if key != name}
        if name in EXPLAINING and algorithm == "isolation_forest":
            again, rows = type(detector).from_arrays(rest), history(50, 3)
            assert again.oddness(rows).tobytes() == detector.oddness(rows).tobytes()
            continue
        with pytest.raises(ArtefactIncompatible, match="retrain"):
            type(detector).from_arrays(rest)
