"""Isolation Forest (Liu, Ting & Zhou 2008): scikit-learn grows it, a kernel scores it.

The kernel gives scikit-learn's own score_samples to 1e-9 at a hundredth of its cost per event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray
from detection.detectors.calibration import TailCalibration, split, thinned
from detection.detectors.jit import kernel
from detection.detectors.normal_rows import NormalRows, RobustScale, array, shares
from detection.errors import ArtefactIncompatible

DEEPEST = 12  # a full binary tree is stored: 2 ** depth leaves
_EULER = 0.5772156649015329


@kernel
def _path_lengths(
    columns: NDArray[np.float32],
    feature: NDArray[np.uint16],
    threshold: NDArray[np.float32],
    leaf: FloatArray,
    depth: int,
    out: FloatArray,
) -> None:
    """Sum over trees, in their order, of the path lengths of rows given by `columns` [k, n].

    Rows go in blocks, level by level: a tree is read once for many rows and every path has
    `depth` steps without a branch, so that one instruction moves several rows. Places are
    unsigned, since numba checks signed ones for counting from the end.
    """
    k, n = columns.shape
    trees, inner = feature.shape
    width, one = np.uint32(128), np.uint32(1)
    node = np.zeros(128, np.uint32)
    block = np.zeros(k * 128, np.float32)
    total = np.zeros(128)
    for start in range(0, n, 128):
        size = min(128, n - start)
        for c in range(k):
            for j in range(size):
                block[c * 128 + j] = columns[c, start + j]
        total[:] = 0.0
        for tree in range(trees):
            asked, limit, length = feature[tree], threshold[tree], leaf[tree]
            root, first = np.uint32(asked[0]) * width, limit[0]
            for j in range(128):
                node[j] = one + np.uint32(block[root + np.uint32(j)] > first)
            for _ in range(depth - 1):
                for j in range(128):
                    at = node[j]
                    right = block[np.uint32(asked[at]) * width + np.uint32(j)] > limit[at]
                    node[j] = at + at + one + np.uint32(right)
            for j in range(128):
                total[j] += length[node[j] - np.uint32(inner)]
        out[start : start + size] = total[:size]


@kernel
def _shortenings(
    rows: NDArray[np.float32],
    feature: NDArray[np.uint16],
    threshold: NDArray[np.float32],
    expected: FloatArray,
    out: FloatArray,
) -> None:
    """By column [n, k]: how much its splits shorten the paths of a row, negative if they lengthen.

    `expected` [trees, all nodes] is the mean path length of the training rows that reach a node.
    """
    inner = feature.shape[1]
    for i in range(rows.shape[0]):
        for tree in range(feature.shape[0]):
            node = np.int64(0)
            while node < inner:
                column = feature[tree, node]
                child = 2 * node + 1 + np.int64(rows[i, column] > threshold[tree, node])
                out[i, column] += expected[tree, node] - expected[tree, child]
                node = child


@dataclass(frozen=True, slots=True, eq=False)
class FlatForest:
    """A forest in heap order: node i has the children 2i+1 (x ≤ threshold) and 2i+2.

    `feature` uint16[trees, 2^depth − 1], `threshold` float32 likewise (+inf below a leaf that came
    early), `leaf` float64[trees, 2^depth]: path lengths; `leaf_rows` uint16 likewise: training rows
    that end there. A threshold is scikit-learn's float64, rounded down to float32: for float32
    inputs every decision is the same.
    """

    feature: NDArray[np.uint16]
    threshold: NDArray[np.float32]
    leaf: FloatArray
    leaf_rows: NDArray[np.uint16] | None
    normaliser: float
    columns: int

    def raw(self, features: FloatArray) -> FloatArray:
        """−score_samples of scikit-learn, float64[n] in (0, 1]; ValueError on another k."""
        lengths = np.empty(len(features))
        depth = int(self.leaf.shape[1]).bit_length() - 1
        columns = np.ascontiguousarray(self._single(features).T)
        _path_lengths(columns, self.feature, self.threshold, self.leaf, depth, lengths)
        return np.asarray(np.exp2(-lengths / self.normaliser))

    def shortenings(self, features: FloatArray) -> FloatArray:
        """By column [n, k], summed over trees: how much its splits shorten a row's path.

        A split's shortening is the mean path length of the training rows at its node, less that
        of those at the child where the row goes; they add up to the mean path length of all, less
        the row's own (the path attribution of trees by Saabas 2014, for which TreeSHAP averages
        over orders; DIFFI by Carletti et al. 2023 weighs splits of isolation trees likewise).
        """
        out = np.zeros((len(features), self.columns))
        if self.leaf_rows is not None:
            rows = np.ascontiguousarray(self._single(features))
            _shortenings(rows, self.feature, self.threshold, self._expected(), out)
        return out

    def _single(self, features: FloatArray) -> NDArray[np.float32]:
        if features.ndim != 2 or features.shape[1] != self.columns:
            raise ValueError(f"features {features.shape}, the forest needs [n, {self.columns}]")
        with np.errstate(over="ignore"):
            return features.astype(np.float32)

    def _expected(self) -> FloatArray:
        """Mean path length of the training rows that reach a node, [trees, 2^(depth + 1) − 1]."""
        rows, mean = np.asarray(self.leaf_rows, np.float64), self.leaf
        levels = [mean]
        while rows.shape[1] > 1:
            below = rows[:, ::2] + rows[:, 1::2]
            total = rows[:, ::2] * mean[:, ::2] + rows[:, 1::2] * mean[:, 1::2]
            mean = np.divide(total, below, out=np.zeros_like(total), where=below > 0)
            rows = below
            levels.append(mean)
        return np.ascontiguousarray(np.concatenate(levels[::-1], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class IsolationForestDetector:
    """A trained forest: a row is odd whose paths to a leaf are short.

    A model of an earlier Vigil has no `leaf_rows` and no `normal`: it scores, and explains nothing.
    """

    forest: FlatForest
    normal: NormalRows | None
    calibration: TailCalibration

    name = "isolation_forest"

    @property
    def columns(self) -> int:
        return self.forest.columns

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        *,
        seed: int,
        n_estimators: int = 100,
        max_samples: int = 256,
        contamination: float = 0.01,
        holdout: float = 0.3,
        **_: Any,
    ) -> Self:
        """Grow on the first rows [n, k], calibrate on the last `holdout` share, in order of time.

        `contamination` is the share of oddest held-out rows that the calibration leaves out.
        NotEnoughData where fewer than 100 held-out rows remain.
        """
        from sklearn.ensemble import IsolationForest  # slow to import, for training only

        kept, held_out = split(features, holdout, contamination)
        forest = flatten(
            IsolationForest(
                n_estimators=n_estimators,
                max_samples=min(max_samples, 1 << DEEPEST, len(kept)),
                contamination=contamination if contamination > 0 else "auto",
                random_state=seed,
                n_jobs=1,
            ).fit(np.ascontiguousarray(kept, dtype=np.float32))
        )
        rng = np.random.default_rng(seed)
        normal = NormalRows.choose(kept, RobustScale.fit(kept), forest.raw, rng)
        calibration = TailCalibration.fit(forest.raw(held_out), contamination)
        return cls(forest, normal, calibration.levelled(forest.raw(thinned(features))))

    def raw(self, features: FloatArray) -> FloatArray:
        """−score_samples of scikit-learn, float64[n] in (0, 1]: 0.5 is usual, high is odd."""
        return self.forest.raw(features)

    def oddness(self, features: FloatArray) -> FloatArray:
        """float64[n]; nan for a row that holds a nan."""
        odd = self.calibration.oddness(self.raw(features))
        unknown = np.isnan(features).any(axis=1)
        if unknown.any():
            odd[unknown] = np.nan
        return odd

    def contributions(self, features: FloatArray) -> FloatArray:
        """Each column's share of what shortens the paths, [n, k]: see `FlatForest.shortenings`.

        Columns that lengthen them have no share. 0 where the paths are as long as usual or longer.
        """
        parts = self.forest.shortenings(features)
        total = np.zeros(len(parts))
        for column in range(self.columns):
            total += parts[:, column]
        odd = (total > 0) & ~np.isnan(features).any(axis=1)
        return shares(np.maximum(parts, 0.0), odd)

    def nearest(self, features: FloatArray) -> FloatArray:
        """The nearest normal training row to each, [n, k]; nan for a row that holds a nan."""
        if self.normal is None:
            return np.full(features.shape, np.nan)
        return self.normal.nearest(features)

    def arrays(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {
            "feature": self.forest.feature,
            "threshold": self.forest.threshold,
            "leaf": self.forest.leaf,
            "normaliser": np.array([self.forest.normaliser]),
            "columns": np.array([self.columns], dtype=np.int64),
            **self.calibration.arrays(),
        }
        if self.forest.leaf_rows is not None:
            found["leaf_rows"] = self.forest.leaf_rows
        return found if self.normal is None else {**found, **self.normal.arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        threshold = np.ascontiguousarray(array(arrays, "threshold", 2), np.float32)
        feature = np.ascontiguousarray(array(arrays, "feature", 2), np.uint16)
        leaf = array(arrays, "leaf", 2)
        normaliser, columns = (array(arrays, name, 1) for name in ("normaliser", "columns"))
        leaf_rows = None
        if "leaf_rows" in arrays:
            leaf_rows = np.ascontiguousarray(array(arrays, "leaf_rows", 2), np.uint16)
        normal = NormalRows.from_arrays(arrays) if "normal" in arrays else None
        shapes_fit = (
            threshold.shape == feature.shape
            and leaf.shape == (feature.shape[0], feature.shape[1] + 1)
            and leaf.shape[1] & (leaf.shape[1] - 1) == 0
            and feature.size > 0
            and len(normaliser) == len(columns) == 1
            and int(feature.max()) < columns[0]
            and (leaf_rows is None or leaf_rows.shape == leaf.shape)
            and (normal is None or normal.scale.columns == columns[0])
        )
        if not shapes_fit:
            raise ArtefactIncompatible("the forest's arrays don't fit together: retrain it")
        forest = FlatForest(
            feature, threshold, leaf, leaf_rows, float(normaliser[0]), int(columns[0])
        )
        return cls(forest, normal, TailCalibration.from_arrays(arrays))


def flatten(forest: Any) -> FlatForest:
    """Plain arrays of a fitted scikit-learn IsolationForest."""
    trees = [estimator.tree_ for estimator in forest.estimators_]
    depth = max(1, max(int(tree.max_depth) for tree in trees))
    if depth > DEEPEST:
        raise ValueError(f"trees {depth} deep, at most {DEEPEST} are stored")
    inner = (1 << depth) - 1
    feature = np.zeros((len(trees), inner), np.uint16)
    threshold = np.full((len(trees), inner), np.inf, np.float32)
    leaf = np.zeros((len(trees), inner + 1))
    leaf_rows = np.zeros((len(trees), inner + 1), np.uint16)
    for at, tree in enumerate(trees):
        _place(tree, feature[at], threshold[at], leaf[at], leaf_rows[at], inner)
    normaliser = len(trees) * _average_path(int(forest.max_samples_))
    return FlatForest(feature, threshold, leaf, leaf_rows, normaliser, int(forest.n_features_in_))


def _place(
    tree: Any,
    feature: NDArray[np.uint16],
    threshold: NDArray[np.float32],
    leaf: FloatArray,
    leaf_rows: NDArray[np.uint16],
    inner: int,
) -> None:
    pending = [(0, 0, 0)]  # scikit-learn's node, heap position, depth
    while pending:
        node, position, depth = pending.pop()
        left, right = int(tree.children_left[node]), int(tree.children_right[node])
        if left >= 0:
            feature[position] = tree.feature[node]
            threshold[position] = _round_down(float(tree.threshold[node]))
            pending.append((left, 2 * position + 1, depth + 1))
            pending.append((right, 2 * position + 2, depth + 1))
            continue
        while position < inner:  # always to the left, where nothing more is asked
            position = 2 * position + 1
        leaf[position - inner] = depth + _average_path(int(tree.n_node_samples[node]))
        leaf_rows[position - inner] = tree.n_node_samples[node]


def _round_down(value: float) -> np.float32:
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > value else rounded


def _average_path(samples: int) -> float:
    """Mean depth of an unsuccessful search in a binary tree of `samples` leaves."""
    if samples <= 1:
        return 0.0
    if samples == 2:
        return 1.0
    return 2.0 * (math.log(samples - 1.0) + _EULER) - 2.0 * (samples - 1.0) / samples
