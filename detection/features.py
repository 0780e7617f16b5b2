"""The feature space that stored models are trained in: ten numbers per event, free of any scale.

The online kernel computes them on the way; here is what they mean. A change of a formula or of
the order is a new FEATURE_VERSION, and models of another version are refused.

Notation (detectors/online.py): x the value, R the decayed range, e the forecast's residual in
units of R, D the mean |e| (limited, slow: rate 0.01), r the seasonal residual in units of R, E its
mean size, T1…T5 the alarm levels of the novelties z1…z5. All are taken before x is learnt, save
R, which contains x. All are finite, and bounded so that one wild event can't stretch a forest.

==========  =======================================================  =========
name        formula                                                  bounds
==========  =======================================================  =========
residual    e / (D + 0.001)                                          ±10
change      (x − x₋₁) / R, 0 at the first event                      ±1
level       (2x − M − m) / R, place within the decayed range         ±1
spread      ln((D′ + 0.001) / (D + 0.001)), D′ like D at rate 0.1    ±5
seasonal    r / (E + 0.01), 0 where no season was found              ±10
novelty     z1 / T1, distance from every value known                 0…10
pair        z2 / T2, the same of two consecutive means of 2          0…10
block       z3 / T3, the same of two consecutive means of 12         0…10
drift       z5 / T5, mean of the last 12 r times the season's skill  0…10
gap         ln((Δτ + 1) / (mean gap + 1)), Δτ in s, at most a week   ±5
==========  =======================================================  =========
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FEATURE_VERSION = 1
VECTOR_VERSION = 1
"""Of how the values of wide events are smoothed and scaled before stored models see them."""

Space = Literal["series", "vector"]
"""What a model's rows are: the features below, or the values of a wide event."""

FEATURE_NAMES: tuple[str, ...] = (
    "residual",
    "change",
    "level",
    "spread",
    "seasonal",
    "novelty",
    "pair",
    "block",
    "drift",
    "gap",
)

ALL = "all"
FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    ALL: FEATURE_NAMES,
    "forecast": ("residual", "change", "spread", "seasonal", "drift"),
    "novelty": ("novelty", "pair", "block"),
    "event": ("residual", "change", "level", "novelty"),
    "course": ("spread", "pair", "block", "drift"),
    "timeless": tuple(name for name in FEATURE_NAMES if name != "gap"),
}
"""What a stored model of series may be trained on, by name: how far from what was foreseen, how
unlike all that was seen, what one event shows alone, what only several show, all but the pace."""

LEAST_SCALES: NDArray[np.float64] = np.array([0.5, 0.1, 0.2, 0.2, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2])
"""By feature: what counts as one step to models of distances however narrow a history was.

A quarter of the alarm level for novelties, a tenth of the range for changes: smaller differences
are odd to nobody.
"""


def set_of(name: Any) -> tuple[str, ...]:
    """The features of a set, in their order.

    Raises:
        ValueError: there is no such set; says which there are.
    """
    found = FEATURE_SETS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValueError(f"features {str(name)[:60]!r} is none of {', '.join(FEATURE_SETS)}")
    return found


def places(names: Sequence[str]) -> NDArray[np.int64]:
    """Where these features stand in a row of all of them, int64 [k]."""
    return np.array([FEATURE_NAMES.index(name) for name in names], dtype=np.int64)


def row_names(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of the rows that a restored model takes: of series always all features."""
    if manifest.get("space", "series") == "series":
        return FEATURE_NAMES
    return tuple(manifest["feature_names"])
