"""A model that was trained on some of the features, behind the same face as one of all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.base import FloatArray, RowScorer
from detection.features import FEATURE_NAMES, places


class OnSubset:
    """Takes rows of all features [n, 10] and shows the model only its own columns."""

    def __init__(self, model: RowScorer, names: Sequence[str]) -> None:
        """`names` are those of the model's columns, in order."""
        self.name = model.name
        self._model = model
        self._at = places(names)

    @property
    def columns(self) -> int:
        return len(FEATURE_NAMES)

    def oddness(self, features: FloatArray) -> FloatArray:
        return self._model.oddness(self._own(features))

    def contributions(self, features: FloatArray) -> FloatArray:
        """What the model does not see has no share."""
        out = np.zeros(features.shape)
        out[:, self._at] = self._model.contributions(self._own(features))
        return out

    def nearest(self, features: FloatArray) -> FloatArray:
        """nan in the columns that the model does not see."""
        out = np.full(features.shape, np.nan)
        out[:, self._at] = self._model.nearest(self._own(features))
        return out

    def _own(self, features: FloatArray) -> FloatArray:
        if features.ndim != 2 or features.shape[1] != len(FEATURE_NAMES):
            raise ValueError(f"features {features.shape}, the model needs [n, {self.columns}]")
        return np.take(features, self._at, axis=1)
