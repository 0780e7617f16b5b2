"""Columns to PostgreSQL's binary COPY format without a Python loop over rows.

Fields have a fixed width, but for lists of bytes, and are never NULL (nan stands for it and becomes
NULL by ``NULLIF`` in the statement that reads the staging table). Format: PostgreSQL manual, COPY,
"Binary Format".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_POSTGRES_EPOCH_US = 946_684_800_000_000
_INT4_OID = 23


def timestamps(us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Unix µs as PostgreSQL's µs since 2000, the binary form of timestamptz."""
    return us - _POSTGRES_EPOCH_US


Column = NDArray[Any] | Sequence[bytes]


def encode(columns: Mapping[str, Column]) -> bytes:
    """The COPY stream of equal-length columns: int16/32/64, float64, void or int32 ``[n, k]``.

    A void column (``V<bytes>``) becomes ``bytea``, a two-dimensional int32 one an ``integer[]`` of
    ``k`` elements. Lists of bytes (``bytea``, or ``text`` in UTF-8) may differ in length from row
    to row; they come last, and cost a Python loop.
    """
    n = len(next(iter(columns.values())))
    fixed = {name: c for name, c in columns.items() if isinstance(c, np.ndarray)}
    varying = [c for c in columns.values() if not isinstance(c, np.ndarray)]
    if list(fixed) != list(columns)[: len(fixed)]:
        raise ValueError("columns of bytes come after those of fixed width")
    rows = _fixed(fixed, n, len(columns)).tobytes()
    if not varying:
        return _HEADER + rows + _TRAILER
    width = len(rows) // max(1, n)
    parts = [_HEADER]
    for i in range(n):
        parts.append(rows[i * width : (i + 1) * width])
        for column in varying:
            parts += (len(column[i]).to_bytes(4, "big"), column[i])
    parts.append(_TRAILER)
    return b"".join(parts)


def _fixed(columns: Mapping[str, NDArray[Any]], n: int, count: int) -> NDArray[Any]:
    """Rows of the fields of fixed width, each begun by how many fields there are in all."""
    fields: list[Any] = [("fields", ">i2")]
    for name, column in columns.items():
        fields.append((f"{name} size", ">i4"))
        if column.ndim == 2:
            item = np.dtype([("size", ">i4"), ("value", ">i4")])
            fields += [(f"{name} head", ">i4", (5,)), (name, item, (column.shape[1],))]
        else:
            fields.append((name, column.dtype.newbyteorder(">")))
    rows = np.zeros(n, dtype=np.dtype(fields))
    rows["fields"] = count
    for name, column in columns.items():
        if column.ndim == 2:
            k = column.shape[1]
            rows[f"{name} size"] = 20 + 8 * k
            # dimensions, has-null flag, element type, length, lower bound
            rows[f"{name} head"] = np.array([1, 0, _INT4_OID, k, 1])
            rows[name]["size"] = 4
            rows[name]["value"] = column
        else:
            rows[f"{name} size"] = column.dtype.itemsize
            rows[name] = column
    return rows


def copy(cursor: psycopg.Cursor[Any], table: str, columns: Mapping[str, Column]) -> None:
    """COPY columns into ``table`` (a name of our own, never a user's)."""
    names = ", ".join(f'"{name}"' for name in columns)
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)".encode()) as stream:
        stream.write(encode(columns))
