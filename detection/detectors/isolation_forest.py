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
from detection.detectors.calibration import LEAST_ROWS, TailCalibration
from detection.detectors.jit import kernel
from detection.errors import ArtefactIncompatible, NotEnoughData

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


@dataclass(frozen=True, slots=True, eq=False)
class IsolationForestDetector:
    """A trained forest in heap order: node i has the children 2i+1 (x ≤ threshold) and 2i+2.

    `feature` uint16[trees, 2^depth − 1], `threshold` float32 likewise (+inf below a leaf that came
    early), `leaf` float64[trees, 2^depth]: path lengths. A threshold is scikit-learn's float64,
    rounded down to float32: for float32 inputs every decision is the same.
    """

    feature: NDArray[np.uint16]
    threshold: NDArray[np.float32]
    leaf: FloatArray
    normaliser: float
    columns: int
    calibration: TailCalibration

    name = "isolation_forest"

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

        kept = len(features) - int(holdout * len(features))
        if kept < 2 or (len(features) - kept) * (1.0 - contamination) < LEAST_ROWS:
            raise NotEnoughData(f"{len(features)} rows are too few to train and to calibrate")
        forest = IsolationForest(
            n_estimators=n_estimators,
            max_samples=min(max_samples, 1 << DEEPEST, kept),
            contamination=contamination if contamination > 0 else "auto",
            random_state=seed,
            n_jobs=1,
        ).fit(np.ascontiguousarray(features[:kept], dtype=np.float32))
        bare = flatten(forest)
        calibration = TailCalibration.fit(bare.raw(features[kept:]), contamination)
        return cls(
            bare.feature,
            bare.threshold,
            bare.leaf,
            bare.normaliser,
            bare.columns,
            calibration,
        )

    def raw(self, features: FloatArray) -> FloatArray:
        """−score_samples of scikit-learn, float64[n] in (0, 1]: 0.5 is usual, high is odd."""
        return raw_scores(self, features)

    def oddness(self, features: FloatArray) -> FloatArray:
        """float64[n]; nan for a row that holds a nan."""
        odd = self.calibration.oddness(self.raw(features))
        unknown = np.isnan(features).any(axis=1)
        if unknown.any():
            odd[unknown] = np.nan
        return odd

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "feature": self.feature,
            "threshold": self.threshold,
            "leaf": self.leaf,
            "normaliser": np.array([self.normaliser]),
            "columns": np.array([self.columns], dtype=np.int64),
            **self.calibration.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        try:
            feature = np.ascontiguousarray(arrays["feature"], np.uint16)
            threshold = np.ascontiguousarray(arrays["threshold"], np.float32)
            leaf = np.ascontiguousarray(arrays["leaf"], np.float64)
            normaliser = float(arrays["normaliser"][0])
            columns = int(arrays["columns"][0])
        except KeyError as missing:
            raise ArtefactIncompatible(f"the model has no array {missing}: retrain it") from None
        shapes_fit = (
            feature.ndim == 2
            and threshold.shape == feature.shape
            and leaf.shape == (feature.shape[0], feature.shape[1] + 1)
            and leaf.shape[1] & (leaf.shape[1] - 1) == 0
            and feature.size > 0
            and int(feature.max()) < columns
        )
        if not shapes_fit:
            raise ArtefactIncompatible("the forest's arrays don't fit together: retrain it")
        return cls(
            feature, threshold, leaf, normaliser, columns, TailCalibration.from_arrays(arrays)
        )


@dataclass(frozen=True, slots=True, eq=False)
class FlatForest:
    """A forest without calibration."""

    feature: NDArray[np.uint16]
    threshold: NDArray[np.float32]
    leaf: FloatArray
    normaliser: float
    columns: int

    def raw(self, features: FloatArray) -> FloatArray:
        return raw_scores(self, features)


def raw_scores(forest: FlatForest | IsolationForestDetector, features: FloatArray) -> FloatArray:
    """2^(−path lengths / normaliser) of rows [n, k]; ValueError on another k."""
    if features.ndim != 2 or features.shape[1] != forest.columns:
        raise ValueError(f"features {features.shape}, the forest needs [n, {forest.columns}]")
    lengths = np.empty(len(features))
    depth = int(forest.leaf.shape[1]).bit_length() - 1
    columns = np.ascontiguousarray(features.T, dtype=np.float32)
    _path_lengths(columns, forest.feature, forest.threshold, forest.leaf, depth, lengths)
    return np.asarray(np.exp2(-lengths / forest.normaliser))


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
    for at, tree in enumerate(trees):
        _place(tree, feature[at], threshold[at], leaf[at], inner)
    normaliser = len(trees) * _average_path(int(forest.max_samples_))
    return FlatForest(feature, threshold, leaf, normaliser, int(forest.n_features_in_))


def _place(
    tree: Any,
    feature: NDArray[np.uint16],
    threshold: NDArray[np.float32],
    leaf: FloatArray,
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
