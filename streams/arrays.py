"""Columns as parameters of one statement: numpy to PostgreSQL's binary arrays, for ``unnest``.

A staging table costs a COPY, a second statement and its truncation at every commit; this is one
round trip. Elements have a fixed width and are never NULL (nan stands for it and becomes NULL by
``NULLIF``). Format: PostgreSQL's array_recv.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray
from psycopg.adapt import Dumper
from psycopg.pq import Format

_POSTGRES_EPOCH_US = 946_684_800_000_000


class Array:
    """A column as one parameter; any shape, its elements in C order."""

    element: ClassVar[int]
    dtype: ClassVar[np.dtype[Any]]

    def __init__(self, column: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(column).reshape(-1)
        kind = self.dtype
        item = np.dtype([("size", ">i4"), ("value", kind.newbyteorder(">"))])
        rows = np.empty(len(flat), dtype=item)
        rows["size"] = kind.itemsize
        rows["value"] = flat
        # dimensions, has-null flag, element type, length, lower bound
        head = struct.pack(">iiiii", 1, 0, self.element, len(flat), 1)
        self.data = head + rows.tobytes() if len(flat) else struct.pack(">iii", 0, 0, self.element)


class Int2(Array):
    """``smallint[]``."""

    element, dtype = 21, np.dtype(np.int16)


class Int4(Array):
    """``integer[]``."""

    element, dtype = 23, np.dtype(np.int32)


class Int8(Array):
    """``bigint[]``."""

    element, dtype = 20, np.dtype(np.int64)


class Float8(Array):
    """``float8[]``, every bit kept."""

    element, dtype = 701, np.dtype(np.float64)


class Moments(Array):
    """``timestamptz[]`` of Unix µs, int64."""

    element, dtype = 1184, np.dtype(np.int64)

    def __init__(self, column: NDArray[np.int64]) -> None:
        super().__init__(column - _POSTGRES_EPOCH_US)


@contextmanager
def cursor() -> Iterator[psycopg.Cursor[Any]]:
    """A cursor of Django's connection that takes these as parameters (written ``%b``).

    Django's own bind in the client, as text; this one binds in the server. What goes wrong is
    raised as Django's errors.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as made:
        for kind, dumper in _DUMPERS.items():
            made.adapters.register_dumper(kind, dumper)
        yield made


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        data: bytes = obj.data
        return data


_DUMPERS = {
    kind: type(f"_{kind.__name__}Dumper", (_ArrayDumper,), {"oid": oid})
    for kind, oid in ((Int2, 1005), (Int4, 1007), (Int8, 1016), (Float8, 1022), (Moments, 1185))
}
