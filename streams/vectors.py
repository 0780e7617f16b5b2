"""Schemas of wide events: the set of their values' names, and the series that stands for it.

The values of a wide event are also judged together. The vector is a series of its own, named by a
label that says which values it holds and that no producer may use.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

log = logging.getLogger(__name__)

PREFIX = "vector: "
MOST_VALUES = 64
"""Values that are judged together: state and time grow by their square."""
MOST_SCHEMAS = 8
"""Schemas of one source: each has a state of its own."""
_LONGEST = 60
_SHOWN = 2
_SHOWN_CHARACTERS = 24
_REMEMBERED = 4_096

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """`names` sorted; `arranged` puts values that came in another order into theirs."""

    names: tuple[str, ...]
    label: str
    arranged: Callable[[Values], Values]


def is_vector(metric: str) -> bool:
    """Whether a series' metric is the label of a schema."""
    return metric.startswith(PREFIX)


def label_of(names: Sequence[str]) -> str:
    """The label of sorted names: all of them where they are short, else two and a hash of all.

    >>> label_of(["cpu", "mem"])
    'vector: cpu + mem'
    >>> label_of(["disk", "flow", "pressure", "temperature", "volume", "weight", "x", "y", "zeta"])
    'vector: disk + flow + 7 more · a0c4ed6f'
    """
    plain = " + ".join(names)
    if len(plain) <= _LONGEST and not any("+" in name or "·" in name for name in names):
        return PREFIX + plain
    shown = " + ".join(_shortened(name) for name in names[:_SHOWN])
    more = f" + {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    # Length and order are in it as well, so no other set of names gives the same text.
    text = json.dumps(list(names), ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{PREFIX}{shown}{more} · {digest[:8]}"


class SchemaBook:
    """The schemas that one codec has met, and how many each source has."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, ...], Schema] = {}
        self._of_source: dict[str, int] = {}
        self._told: set[str] = set()

    def schema(self, given: tuple[str, ...]) -> Schema | None:
        """Of a wide event's names in the order they came; None where they are no vector."""
        if len(given) < 2:
            return None
        known = self._schemas.get(given)
        if known is not None:
            return known
        if len(given) > MOST_VALUES:
            self._tell(
                "vector.too_wide",
                f"{len(given)} values in one event: more than {MOST_VALUES} are judged one by one"
                " only, not together",
            )
            return None
        order = sorted(range(len(given)), key=given.__getitem__)
        names = tuple(given[i] for i in order)
        schema = Schema(names, label_of(names), itemgetter(*order))
        if len(self._schemas) >= _REMEMBERED:
            self._schemas.clear()
        self._schemas[given] = schema
        return schema

    def has_room(self, source: str) -> bool:
        """Whether the source may have one more schema."""
        if self._of_source.get(source, 0) < MOST_SCHEMAS:
            return True
        self._tell(
            "vector.too_many_schemas",
            f"{source!r} sends more than {MOST_SCHEMAS} sets of values: further ones are judged"
            " one by one only; send null for a value that is missing, so that the set stays",
        )
        return False

    def no_series_left(self) -> None:
        """Say once that the limit of series leaves no room for a vector."""
        self._tell(
            "vector.limit",
            "no room for a further series (consumer.max_series): values of new wide events are"
            " judged one by one only",
        )

    def count(self, source: str) -> None:
        """The source has one more schema."""
        self._of_source[source] = self._of_source.get(source, 0) + 1

    def _tell(self, event: str, reason: str) -> None:
        if event not in self._told:
            self._told.add(event)
            log.warning("%s reason=%s", event, reason)


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else name[: _SHOWN_CHARACTERS - 1] + "…"
