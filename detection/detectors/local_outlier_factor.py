"""Local Outlier Factor (Breunig, Kriegel, Ng & Sander 2000), scored against a stored reference.

scikit-learn finds the reference's own neighbours; kernels then give its score_samples to 1e-9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray, IntArray
from detection.detectors.calibration import LEAST_TAIL, TailCalibration, split, thinned
from detection.detectors.distance_kernels import (
    neighbour_parts,
    neighbours,
    outlier_factors,
    padded,
)
from detection.detectors.normal_rows import NormalRows, RobustScale, array, sample, shares
from detection.errors import ArtefactIncompatible, NotEnoughData

_GRID = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """A reference [m, k] with what scoring needs of it.

    `reach` float64[m], each row's distance to its own last neighbour; `density` float64[m], its
    local reachability density; `count`, how many neighbours a row is compared with.
    """

    reference: FloatArray
    reach: FloatArray
    density: FloatArray
    count: int
    stored: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", padded(self.reference))

    def nearest(self, rows: FloatArray) -> tuple[FloatArray, IntArray]:
        """Squared distances and places [n, count] of the nearest reference rows."""
        squared = np.empty((len(rows), self.count))
        index = np.empty((len(rows), self.count), np.int64)
        neighbours(np.ascontiguousarray(rows), self.stored, squared, index)
        return squared, index

    def factors(self, rows: FloatArray) -> FloatArray:
        """−score_samples of scikit-learn, float64[n] > 0: 1 is usual, high is odd."""
        out = np.empty(len(rows))
        outlier_factors(*self.nearest(rows), self.reach, self.density, out)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class LocalOutlierFactorDetector:
    """A reference of distinct rows; a row is odd whose neighbours lie closer together than it.

    The raw score is ln LOF: ratios of densities spread over decades, their logarithms have the
    tail that calibration fits.
    """

    around: Neighbourhood
    normal: NormalRows
    calibration: TailCalibration

    name = "local_outlier_factor"

    @property
    def columns(self) -> int:
        return int(self.around.reference.shape[1])

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        *,
        seed: int,
        n_neighbors: int = 20,
        max_reference: int = 1_000,
        contamination: float = 0.01,
        holdout: float = 0.3,
        least_scale: FloatArray | None = None,
        **_: Any,
    ) -> Self:
        """Learn the first rows [n, k], calibrate on the last `holdout` share, in order of time.

        The reference is a seeded sample of at most `max_reference` distinct rows, equal to a
        hundredth of a column's scale counting as one: among more copies than neighbours a density
        is no number (the paper's k-distinct-distance). NotEnoughData where fewer than 100 held-out
        rows or no more than `n_neighbors` distinct ones remain.
        """
        from sklearn.neighbors import LocalOutlierFactor  # slow to import, for training only

        if not 1 <= n_neighbors < max_reference:
            raise ValueError("n_neighbors must be at least 1 and below max_reference")
        kept, held_out = split(features, holdout, contamination)
        rng = np.random.default_rng(seed)
        scale = RobustScale.fit(kept, least_scale)
        z = scale.apply(kept)
        first = np.unique(np.round(z / _GRID) + 0.0, axis=0, return_index=True)[1]
        reference = sample(z[np.sort(first)], max_reference, rng)
        if len(reference) <= n_neighbors:
            raise NotEnoughData(
                f"{len(reference)} distinct rows, {n_neighbors} neighbours need more: wait for "
                "more varied history or set n_neighbors lower"
            )
        around = flatten(
            # One leaf of all rows: exact distances in a fixed order, ties included.
            LocalOutlierFactor(
                n_neighbors=n_neighbors,
                novelty=True,
                algorithm="kd_tree",
                leaf_size=len(reference),
                n_jobs=1,
            ).fit(reference)
        )

        def raw(rows: FloatArray) -> FloatArray:
            return np.log(around.factors(scale.apply(rows)))

        normal = NormalRows.choose(kept, scale, raw, rng)
        calibration = TailCalibration.fit(raw(held_out), contamination, LEAST_TAIL)
        return cls(around, normal, calibration.levelled(raw(thinned(features))))

    def raw(self, features: FloatArray) -> FloatArray:
        """ln LOF, float64[n]: 0 is usual, high is odd. ValueError on another k."""
        return np.log(self.around.factors(self.normal.scale.apply(features)))

    def oddness(self, features: FloatArray) -> FloatArray:
        """float64[n]; nan for a row that holds a nan."""
        odd = self.calibration.oddness(self.raw(features))
        odd[np.isnan(features).any(axis=1)] = np.nan
        return odd

    def contributions(self, features: FloatArray) -> FloatArray:
        """Each column's share of the squared standardised distances to the neighbours, [n, k].

        0 where LOF ≤ 1: such a row lies as close to its neighbours as they do to each other.
        """
        z = self.normal.scale.apply(features)
        squared, index = self.around.nearest(z)
        factor, parts = np.empty(len(z)), np.zeros_like(z)
        outlier_factors(squared, index, self.around.reach, self.around.density, factor)
        neighbour_parts(z, self.around.stored, index, parts)
        return shares(parts, (factor > 1.0) & np.isfinite(factor))

    def nearest(self, features: FloatArray) -> FloatArray:
        """The nearest normal training row to each, [n, k]; nan for a row that holds a nan."""
        return self.normal.nearest(features)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "reference": self.around.reference,
            "reach": self.around.reach,
            "density": self.around.density,
            "neighbours": np.array([self.around.count], dtype=np.int64),
            **self.normal.arrays(),
            **self.calibration.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        normal = NormalRows.from_arrays(arrays)
        reference = array(arrays, "reference", 2)
        reach, density, count = (array(arrays, n, 1) for n in ("reach", "density", "neighbours"))
        if not (
            len(reach) == len(density) == len(reference)
            and reference.shape[1] == normal.scale.columns
            and len(count) == 1
            and 1 <= count[0] <= len(reference)
        ):
            raise ArtefactIncompatible("the reference's arrays don't fit together: retrain it")
        around = Neighbourhood(reference, reach, density, int(count[0]))
        return cls(around, normal, TailCalibration.from_arrays(arrays))


def flatten(fitted: Any) -> Neighbourhood:
    """Plain arrays of a fitted scikit-learn LocalOutlierFactor."""
    distance, index = fitted.kneighbors()
    reach = np.ascontiguousarray(distance[:, -1])
    around = np.maximum(distance, reach[index]).mean(axis=1)
    reference = np.ascontiguousarray(fitted._fit_X, np.float64)
    return Neighbourhood(reference, reach, 1.0 / (around + 1e-10), int(fitted.n_neighbors_))
