"""One-Class SVM (Schölkopf, Platt, Shawe-Taylor, Smola & Williamson 2001) with an RBF kernel.

scikit-learn finds the support vectors; a kernel gives its score_samples to 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray
from detection.detectors.calibration import LEAST_TAIL, TailCalibration, split, thinned
from detection.detectors.distance_kernels import (
    log_kernel_sums,
    padded,
    support_parts,
)
from detection.detectors.normal_rows import NormalRows, RobustScale, array, sample, shares
from detection.errors import ArtefactIncompatible


@dataclass(frozen=True, slots=True, eq=False)
class SupportVectors:
    """f(x) = Σ weight · exp(−rate · |x − vector|²); `offset` is f at the boundary of the normal."""

    vectors: FloatArray  # [m, k]
    weight: FloatArray  # [m], all > 0
    rate: float
    offset: float
    stored: FloatArray = field(init=False, repr=False)
    stored_weight: FloatArray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stored = padded(self.vectors)
        weight = np.zeros(stored.shape[1])
        weight[: len(self.weight)] = self.weight
        object.__setattr__(self, "stored", stored)
        object.__setattr__(self, "stored_weight", weight)

    def log_scores(self, rows: FloatArray) -> FloatArray:
        """ln of scikit-learn's score_samples, float64[n]; finite where that is 0 by underflow."""
        out = np.empty(len(rows))
        log_kernel_sums(np.ascontiguousarray(rows), self.stored, self.stored_weight, self.rate, out)
        return out

    def distance(self, rows: FloatArray) -> FloatArray:
        """ln(1 + soft minimum of rate · squared distance), float64[n] ≥ 0."""
        soft = math.log(float(self.weight.sum())) - self.log_scores(rows)
        return np.asarray(np.log1p(np.maximum(soft, 0.0)))


@dataclass(frozen=True, slots=True, eq=False)
class OneClassSvmDetector:
    """Support vectors at the border of what is normal; a row is odd that lies far from them all.

    The raw score is ln(1 + ln(Σ weight / f)), which falls as f rises and goes on where f itself is
    0 for all that is far off: ln(Σ weight / f) is a soft minimum of rate · squared distance.
    """

    support: SupportVectors
    normal: NormalRows
    calibration: TailCalibration

    name = "one_class_svm"

    @property
    def columns(self) -> int:
        return int(self.support.vectors.shape[1])

    @classmethod
    def fit(
        cls,
        features: FloatArray,
        *,
        seed: int,
        nu: float = 0.05,
        gamma: float | Literal["scale"] = "scale",
        max_samples: int = 3_000,
        contamination: float = 0.01,
        holdout: float = 0.3,
        least_scale: FloatArray | None = None,
        **_: Any,
    ) -> Self:
        """Learn the first rows [n, k], calibrate on the last `holdout` share, in order of time.

        Of the first rows a seeded sample of at most `max_samples` trains; at least the share `nu`
        of it becomes support vectors. `gamma` "scale" is 1 / (k · variance). NotEnoughData where
        fewer than 100 held-out rows remain.
        """
        from sklearn.svm import OneClassSVM  # slow to import, for training only

        if not 0 < nu <= 1 or max_samples < 2 or (gamma != "scale" and not gamma > 0):
            raise ValueError('0 < nu ≤ 1, max_samples ≥ 2 and gamma > 0 or "scale" are needed')
        kept, held_out = split(features, holdout, contamination)
        rng = np.random.default_rng(seed)
        scale = RobustScale.fit(kept, least_scale)
        z = scale.apply(sample(kept, max_samples, rng))
        rate = gamma
        if rate == "scale":
            variance = float(z.var())
            rate = 1.0 / (z.shape[1] * variance) if variance > 0 else 1.0
        support = flatten(OneClassSVM(nu=nu, gamma=rate).fit(z))

        def raw(rows: FloatArray) -> FloatArray:
            return support.distance(scale.apply(rows))

        normal = NormalRows.choose(kept, scale, raw, rng)
        calibration = TailCalibration.fit(raw(held_out), contamination, LEAST_TAIL)
        return cls(support, normal, calibration.levelled(raw(thinned(features))))

    def raw(self, features: FloatArray) -> FloatArray:
        """ln(1 + ln(Σ weight / score_samples)), float64[n] ≥ 0: high is odd.

        ValueError on another k.
        """
        return self.support.distance(self.normal.scale.apply(features))

    def oddness(self, features: FloatArray) -> FloatArray:
        """float64[n]; nan for a row that holds a nan."""
        odd = self.calibration.oddness(self.raw(features))
        odd[np.isnan(features).any(axis=1)] = np.nan
        return odd

    def contributions(self, features: FloatArray) -> FloatArray:
        """Each column's share of the distance to the support vectors, [n, k].

        ln(Σ weight / f) is a soft minimum of the squared distances; each vector's part in it is
        shared out by the columns' parts in its squared distance (Kauffmann, Müller & Montavon 2020,
        "Towards explaining anomalies"). 0 where f is at its offset or above: inside of what is
        normal.
        """
        z = self.normal.scale.apply(features)
        score, parts = self.support.log_scores(z), np.zeros_like(z)
        support_parts(z, self.support.stored, self.support.stored_weight, self.support.rate, parts)
        with np.errstate(invalid="ignore"):
            return shares(parts, np.exp(score) < self.support.offset)

    def nearest(self, features: FloatArray) -> FloatArray:
        """The nearest normal training row to each, [n, k]; nan for a row that holds a nan."""
        return self.normal.nearest(features)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "vectors": self.support.vectors,
            "weight": self.support.weight,
            "rate": np.array([self.support.rate]),
            "offset": np.array([self.support.offset]),
            **self.normal.arrays(),
            **self.calibration.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        normal, vectors = NormalRows.from_arrays(arrays), array(arrays, "vectors", 2)
        weight, rate, offset = (array(arrays, name, 1) for name in ("weight", "rate", "offset"))
        if not (
            0 < len(vectors) == len(weight)
            and vectors.shape[1] == normal.scale.columns
            and len(rate) == len(offset) == 1
            and rate[0] > 0
            and (weight > 0).all()
        ):
            raise ArtefactIncompatible("the support vectors' arrays don't fit: retrain it")
        support = SupportVectors(vectors, weight, float(rate[0]), float(offset[0]))
        return cls(support, normal, TailCalibration.from_arrays(arrays))


def flatten(fitted: Any) -> SupportVectors:
    """Plain arrays of a fitted scikit-learn OneClassSVM with gamma as a number."""
    return SupportVectors(
        np.ascontiguousarray(fitted.support_vectors_, np.float64),
        np.ascontiguousarray(fitted.dual_coef_[0], np.float64),
        float(fitted.gamma),
        float(fitted.offset_[0]),
    )
