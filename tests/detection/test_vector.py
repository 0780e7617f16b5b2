"""The vector detector against a plain numpy one, and what missing, constant and new values do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detection.detectors.vector import VectorDetector, VectorOutput
from detection.detectors.vector_kernel import TRAIN, width
from detection.errors import StateLayoutError
from detection.vectors import VectorStore

Float = NDArray[np.float64]


def plant(n: int, k: int = 8, seed: int = 1) -> Float:
    """k values that follow three hidden ones, [n, k], in units of their own."""
    rng = np.random.default_rng(seed)
    hidden = np.cumsum(rng.normal(0, 0.1, (n, 3)), axis=0)
    hidden -= 0.02 * np.cumsum(hidden, axis=0) / np.arange(1, n + 1)[:, None]
    mixed = hidden @ rng.normal(0, 1, (3, k)) + rng.normal(0, 0.3, (n, k))
    return mixed * 10.0 ** rng.integers(-3, 4, k) + rng.normal(0, 5, k)


def score(x: Float, size: int = 10_000, detector: VectorDetector | None = None) -> VectorOutput:
    """All events of one series, in batches of `size`."""
    detector, store = detector or VectorDetector(), VectorStore()
    parts = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        rows = store.rows_of(np.zeros(len(part), dtype=np.int64), x.shape[1])
        parts.append(detector.score(store.pool(x.shape[1]), rows, part))
    names = VectorOutput.__slots__
    return VectorOutput(**{f: np.concatenate([getattr(p, f) for p in parts]) for f in names})


def reference(x: Float) -> tuple[Float, Float, float]:
    """(T², standardised levels, q) of the recipe with numpy's own linear algebra, no drift."""
    first = x[:TRAIN]
    noise = np.minimum(np.diff(first, axis=0).std(axis=0) / np.sqrt(2), first.std(axis=0))
    y, levels = first[:20].mean(axis=0), []
    for row in x[20:]:
        e = row - y
        y = y + e - 0.97 * np.clip(e, -3.5 * noise, 3.5 * noise)
        levels.append(y)
    every = np.array(levels)
    learnt = every[: TRAIN - 20]

    def t2(rows: Float, by: Float) -> Float:
        sd = by.std(axis=0)
        r = 0.98 * np.corrcoef(by.T) + 0.02 * np.eye(x.shape[1])
        factor = np.linalg.cholesky(np.diag(sd) @ r @ np.diag(sd))
        whitened = np.linalg.solve(factor, (rows - by.mean(axis=0)).T)
        return np.asarray((whitened**2).sum(axis=0) / x.shape[1])

    held_out = []
    for block in np.array_split(np.arange(len(learnt)), 5):
        others = np.delete(learnt, block, axis=0)
        held_out.append(t2(learnt[block], others))
    q = float(np.quantile(np.concatenate(held_out), 0.9))
    later = every[TRAIN - 20 :]
    return t2(later, learnt), (later - learnt.mean(axis=0)) / learnt.std(axis=0), q


@pytest.mark.parametrize("k", [2, 8, 64])
def test_it_is_the_recipe(k: int) -> None:
    x = plant(700, k)
    x[600:, :2] *= 3
    out = score(x, detector=VectorDetector(drift=0.0))
    t2, standard, q = reference(x)
    assert np.isnan(out.oddness[:TRAIN]).all()
    np.testing.assert_allclose(out.distance[TRAIN:] ** 2, t2, rtol=1e-8)
    np.testing.assert_allclose(out.standard[TRAIN:], standard, rtol=1e-8, atol=1e-10)
    oddness = np.maximum(0, (np.log(t2) - 0.5 * np.log(q)) / 3)
    np.testing.assert_allclose(out.oddness[TRAIN:], oddness, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(out.band[-1, 1], np.sqrt(np.exp(3) * np.sqrt(q)), rtol=1e-8)
    assert out.oddness[600:].max() > 1 > out.oddness[TRAIN:600].max()


def test_batches_and_other_series_change_no_bit() -> None:
    x, other = plant(900), plant(900, seed=2)
    x[500:560, 3] += 40
    whole = score(x)
    for size in (1, 7, 333):
        cut = score(x, size)
        for name in VectorOutput.__slots__:
            assert getattr(whole, name).tobytes() == getattr(cut, name).tobytes(), name
    store, detector = VectorStore(), VectorDetector()
    slots = np.arange(1800) % 2 + 5
    mixed = np.empty((1800, 8))
    mixed[0::2], mixed[1::2] = x, other
    out = detector.score(store.pool(8), store.rows_of(slots, 8), mixed)
    assert out.oddness[0::2].tobytes() == whole.oddness.tobytes()


@pytest.mark.parametrize("cut", [1, 250, 400, 401, 650])
def test_a_packed_state_goes_on_where_it_stood(cut: int) -> None:
    x = plant(900)
    whole = score(x)
    detector, before, after = VectorDetector(), VectorStore(), VectorStore()
    slot = np.array([3])
    detector.score(before.pool(8), before.rows_of(slot.repeat(cut), 8), x[:cut])
    packed = before.pack(3)
    assert len(packed) == before.packed_bytes(3)
    assert len(packed) == 8 * (width(8) + (8 * cut if cut < TRAIN else 0))
    after.unpack(np.array([9]), 8, [packed])
    assert after.pack(9) == packed
    rest = detector.score(
        after.pool(8), after.rows_of(np.full(900 - cut, 9, dtype=np.int64), 8), x[cut:]
    )
    assert rest.oddness.tobytes() == whole.oddness[cut:].tobytes()
    for broken in (packed[:-8], packed + bytes(8), packed[:-1], b""):
        with pytest.raises(StateLayoutError, match="no state of a vector"):
            after.unpack(np.array([9]), 8, [broken])


def test_shares_sum_to_one_and_name_what_moved() -> None:
    x = plant(800)
    x[600:, 5] += 30 * x[:400, 5].std()
    out = score(x)
    odd = out.oddness >= 0.5
    assert odd[620:].all()
    assert np.isnan(out.share[~odd]).all()
    assert (out.share[odd] >= 0).all()
    np.testing.assert_allclose(out.share[odd].sum(axis=1), 1.0, rtol=1e-12)
    assert (out.share[640:].argmax(axis=1) == 5).all()


def test_a_missing_value_keeps_its_level() -> None:
    x = plant(900)
    whole = score(x)
    holes = x.copy()
    holes[np.random.default_rng(0).random(x.shape) < 0.05] = np.nan
    out = score(holes)
    assert np.isfinite(out.oddness[TRAIN:]).all()
    assert np.abs(out.oddness[TRAIN:] - whole.oddness[TRAIN:]).max() < 0.5
    assert out.oddness[TRAIN:].max() < 1

    gone = x.copy()
    gone[500:, 2] = np.nan
    level = score(gone).standard[500:, 2]
    drifted = score(gone, detector=VectorDetector(drift=0.0)).standard[499:, 2]
    assert (drifted == drifted[0]).all()
    assert np.abs(level - drifted[0]).max() < 0.5  # only the mean moves


def test_a_value_that_is_mostly_missing_or_constant_takes_no_part() -> None:
    x = plant(700)
    without = score(np.delete(x, 4, axis=1))
    for column in (np.full(700, 7.25), np.where(np.arange(700) % 5 == 0, x[:, 4], np.nan)):
        y = x.copy()
        y[:, 4] = column
        out = score(y)
        np.testing.assert_allclose(out.oddness[TRAIN:], without.oddness[TRAIN:], rtol=1e-9)
        assert (out.standard[TRAIN:, 4] == 0).all()
        assert not out.share[out.oddness >= 0.5][:, 4].any()


def test_a_value_constant_in_four_blocks_of_five_is_no_division_by_zero() -> None:
    x = plant(700)
    x[:, 4] = 1.0
    x[320:340, 4] = np.random.default_rng(5).normal(1, 0.1, 20)
    assert np.isfinite(score(x).oddness[TRAIN:]).all()


def test_fewer_than_two_values_that_move_try_again() -> None:
    x = plant(1300, 3)
    x[:450, :2] = 4.0
    out = score(x)
    assert np.isnan(out.oddness[:800]).all()
    assert np.isfinite(out.oddness[800:]).all()
    constant = np.ones((900, 3))
    assert np.isnan(score(constant).oddness).all()


def test_values_without_a_square_or_number_count_as_missing() -> None:
    x = plant(700)
    wild = x.copy()
    wild[300, 1], wild[500, 2], wild[501, 2], wild[600] = 1e299, -1e299, np.inf, np.nan
    out = score(wild)
    assert np.isfinite(out.oddness[TRAIN:]).all()
    assert out.oddness[TRAIN:].max() < 1


def test_a_state_that_stays_is_learnt_anew_and_judged_meanwhile() -> None:
    x = plant(3600)
    x[1000:] += 25 * x[:400].std(axis=0) * np.where(np.arange(8) % 2, 1, -1)
    out = score(x, detector=VectorDetector(drift=0.0, relearn_events=600))
    assert (out.oddness[1010:1900] >= 1).all()
    learnt = 1000 + 600 + TRAIN
    assert np.isfinite(out.oddness[TRAIN:]).all()
    assert out.oddness[learnt + 5 : learnt + 100].max() < 1
    usual = score(x, detector=VectorDetector(drift=0.0, relearn_events=10_000))
    assert (usual.oddness[1010:] >= 1).all()


def test_a_value_that_begins_to_move_is_taken_in() -> None:
    x = plant(2400)
    moving = x[:, 4].copy()
    x[:900, 4] = moving[0]
    out = score(x, detector=VectorDetector(relearn_events=500))
    assert (out.standard[TRAIN:1300, 4] == 0).all()
    assert (out.standard[1900:, 4] != 0).any()


def test_training_that_an_episodes_end_makes_void_is_dropped() -> None:
    x = plant(1600)
    x[700:1000] += 25 * x[:400].std(axis=0) * np.where(np.arange(8) % 2, 1, -1)
    brief = score(x, detector=VectorDetector(drift=0.0, relearn_events=200))
    usual = score(x, detector=VectorDetector(drift=0.0, relearn_events=10_000))
    assert brief.oddness.tobytes() == usual.oddness.tobytes()


def test_the_mean_follows_slow_drift_only_outside_of_episodes() -> None:
    x = plant(6000)
    sd = x[:400].std(axis=0)
    slow = x + np.linspace(0, 3, 6000)[:, None] * sd
    fixed, moving = (score(slow, detector=VectorDetector(drift=d)) for d in (0.0, 0.001))
    assert moving.oddness[4000:].mean() < fixed.oddness[4000:].mean()
    x[3000:] += 30 * sd * np.where(np.arange(8) % 2, 1, -1)
    out = score(x, detector=VectorDetector(relearn_events=100_000))
    assert (out.oddness[3010:] >= 1).all()


def test_memory_follows_the_number_of_values_and_buffers_are_given_back() -> None:
    store, detector = VectorStore(), VectorDetector()
    x = plant(401)
    slots = np.arange(100).repeat(399)
    detector.score(store.pool(8), store.rows_of(slots, 8), np.tile(x[:399], (100, 1)))
    assert len(store.pool(8).buffers) >= 100
    slots = np.arange(100).repeat(2)
    detector.score(store.pool(8), store.rows_of(slots, 8), np.tile(x[399:], (100, 1)))
    assert len(store.pool(8).buffers) == 1
    assert all(store.packed_bytes(s) == 8 * width(8) for s in range(100))
    used = len(store.pool(8).rows)
    store.release(np.arange(50))
    assert len(store) == 50
    store.rows_of(np.arange(200, 250), 8)
    assert len(store.pool(8).rows) == used
    assert 8 * width(8) < 1_100
    assert 8 * width(64) < 37_000


def test_settings_and_shapes_are_checked() -> None:
    for wrong in ({"quiet_events": 0}, {"relearn_events": 0}, {"drift": 1.0}):
        with pytest.raises(ValueError, match="are needed"):
            VectorDetector(**wrong)
    store = VectorStore()
    with pytest.raises(ValueError, match="vectors of 3"):
        VectorDetector().score(store.pool(3), np.zeros(1, dtype=np.int64), np.zeros((1, 4)))
    store.rows_of(np.array([1]), 3)
    with pytest.raises(ValueError, match="slot 1 holds"):
        store.rows_of(np.array([1]), 4)


def test_what_goes_with_the_others_is_the_conditional_mean() -> None:
    x = plant(800, 5)
    x[700:, 2] += 30 * x[:, 2].std()
    x[:, 4] = 7.0  # takes no part
    out = score(x, detector=VectorDetector(drift=0.0))
    noise = np.minimum(np.diff(x[:TRAIN], axis=0).std(axis=0) / np.sqrt(2), x[:TRAIN].std(axis=0))
    y, levels = x[:20].mean(axis=0), []
    for row in x[20:]:
        e = row - y
        y = y + e - 0.97 * np.clip(e, -3.5 * noise, 3.5 * noise)
        levels.append(y)
    level = np.array(levels)
    learnt = level[: TRAIN - 20, :4]
    r = 0.98 * np.corrcoef(learnt.T) + 0.02 * np.eye(4)
    cov = r * np.outer(learnt.std(axis=0), learnt.std(axis=0))
    i = 710
    assert out.oddness[i] > 1
    np.testing.assert_allclose(out.level[i], level[i - 20], rtol=1e-9)
    np.testing.assert_allclose(out.usual[i, :4], learnt.mean(axis=0), rtol=1e-9)
    for j in range(4):
        rest = [m for m in range(4) if m != j]
        gap = level[i - 20, rest] - learnt.mean(axis=0)[rest]
        told = learnt.mean(axis=0)[j] + cov[j, rest] @ np.linalg.solve(cov[np.ix_(rest, rest)], gap)
        np.testing.assert_allclose(out.expected[i, j], told, rtol=1e-6)
    assert (out.share[i, 4], out.expected[i, 4]) == (0, 7)
    calm = out.oddness[TRAIN:700] < 0.5
    assert np.isnan(out.expected[TRAIN:700][calm]).all()
    store = VectorStore()
    rows = store.rows_of(np.zeros(len(x), dtype=np.int64), 5)
    every = VectorDetector(drift=0.0).score(store.pool(5), rows, x, 0.0)
    assert np.isfinite(every.expected[TRAIN:]).all()
    assert every.expected[i].tobytes() == out.expected[i].tobytes()
