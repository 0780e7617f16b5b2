"""What normal rows look like to a stored model: their scale by column, and a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detection.base import FloatArray
from detection.detectors.distance_kernels import neighbours, padded
from detection.errors import ArtefactIncompatible

FARTHEST = 1e6
"""Where standardised values end: their squares stay far from the largest number."""

SAMPLE = 256
_NORMAL_SHARE = 0.9  # of candidates: the oddest tenth of the history is nobody's example


@dataclass(frozen=True, slots=True, eq=False)
class RobustScale:
    """z = (x − median) / scale by column, at most ±1e6.

    `scale` is the larger of the interquartile range / 1.349 (the deviation, for a normal column)
    and the standard deviation: a column that is mostly one value has no range of its own. A column
    that never moved has the scale inf and z = 0: its history does not say how far is far.
    """

    centre: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, rows: FloatArray, least: FloatArray | None = None) -> Self:
        """From rows [n, k], n ≥ 1, all finite; `least` float64[k] bounds the scales from below."""
        low, centre, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        scale = np.maximum((high - low) / 1.349, rows.std(axis=0))
        usable = np.isfinite(scale) & (scale > 1e-9 * np.maximum(1.0, np.abs(centre)))
        bounded = scale if least is None else np.maximum(scale, least)
        return cls(centre, np.where(usable, bounded, np.inf))

    @property
    def columns(self) -> int:
        return len(self.centre)

    def apply(self, rows: FloatArray) -> FloatArray:
        """Standardised rows [n, k]; nan stays nan. ValueError on another k."""
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise ValueError(f"features {rows.shape}, the model needs [n, {self.columns}]")
        z: FloatArray = np.clip((rows - self.centre) / self.scale, -FARTHEST, FARTHEST)
        return z

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"centre": self.centre, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """ArtefactIncompatible if arrays are missing or don't fit."""
        centre, scale = (array(arrays, name, 1) for name in ("centre", "scale"))
        if len(centre) == 0 or centre.shape != scale.shape or not (scale > 0).all():
            raise ArtefactIncompatible("the model's scale doesn't fit its columns: retrain it")
        return cls(centre, scale)


@dataclass(frozen=True, slots=True, eq=False)
class NormalRows:
    """A sample of the rows that a model learnt from and finds normal, as they were."""

    rows: FloatArray  # [m, k]
    scale: RobustScale

    @classmethod
    def choose(
        cls,
        rows: FloatArray,
        scale: RobustScale,
        raw: Callable[[FloatArray], FloatArray],
        rng: np.random.Generator,
    ) -> Self:
        """At most SAMPLE rows, in order, of those that the model's raw score finds least odd."""
        candidates = sample(rows, 4 * SAMPLE, rng)
        score = raw(candidates)
        normal = candidates[score <= np.quantile(score, _NORMAL_SHARE)]
        return cls(sample(normal, SAMPLE, rng), scale)

    def nearest(self, features: FloatArray) -> FloatArray:
        """The row nearest to each of `features` [n, k] by standardised distance; nan for a nan."""
        z = self.scale.apply(features)
        squared, index = np.empty((len(z), 1)), np.empty((len(z), 1), np.int64)
        neighbours(z, padded(self.scale.apply(self.rows)), squared, index)
        found = self.rows[index[:, 0]]
        found[np.isnan(z).any(axis=1)] = np.nan
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"normal": self.rows, **self.scale.arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """ArtefactIncompatible if arrays are missing or don't fit."""
        scale, rows = RobustScale.from_arrays(arrays), array(arrays, "normal", 2)
        if len(rows) == 0 or rows.shape[1] != scale.columns:
            raise ArtefactIncompatible("the model's normal rows don't fit it: retrain it")
        return cls(rows, scale)


def sample(rows: FloatArray, most: int, rng: np.random.Generator) -> FloatArray:
    """At most `most` of the rows, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(rng.choice(len(rows), size=most, replace=False))]


def array(arrays: Mapping[str, NDArray[Any]], name: str, dimensions: int) -> FloatArray:
    """A stored array as float64; ArtefactIncompatible where it is none of so many dimensions.

    A copy: of an array that can't be written every kernel would be compiled a second time.
    """
    try:
        found: FloatArray = np.array(arrays[name], np.float64, order="C")
    except KeyError:
        raise ArtefactIncompatible(f"the model has no array {name!r}: retrain it") from None
    if np.ndim(arrays[name]) != dimensions:
        raise ArtefactIncompatible(f"the model's array {name!r} has another form: retrain it")
    return found


def shares(parts: FloatArray, odd: NDArray[np.bool_]) -> FloatArray:
    """Parts [n, k] ≥ 0 as shares of each row's sum; 0 where a row isn't odd or has no parts."""
    total = np.zeros(len(parts))
    for column in range(parts.shape[1]):  # in a fixed order, whatever the number of rows
        total += parts[:, column]
    usable = odd & (total > 0) & np.isfinite(total)
    out = np.zeros_like(parts)
    np.divide(parts, total[:, None], out=out, where=usable[:, None])
    return out
