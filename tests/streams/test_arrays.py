"""Columns arrive in PostgreSQL bit for bit as parameters of a statement."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from streams import arrays
from streams.arrays import Float8, Int2, Int4, Int8, Moments


@pytest.fixture
def cursor(db: None) -> Iterator[psycopg.Cursor[Any]]:
    with arrays.cursor() as made:
        yield made


def unnested(cursor: psycopg.Cursor[Any], kind: str, column: arrays.Array) -> list[Any]:
    return [row[0] for row in cursor.execute(f"SELECT unnest(%b::{kind}[])".encode(), [column])]


@pytest.mark.parametrize(
    ("made", "kind", "bits"), [(Int2, "smallint", 16), (Int4, "integer", 32), (Int8, "bigint", 64)]
)
def test_whole_numbers_arrive_exactly(
    cursor: psycopg.Cursor[Any], made: type[arrays.Array], kind: str, bits: int
) -> None:
    limit = 2 ** (bits - 1)
    given = np.array([0, -1, limit - 1, -limit], dtype=np.int64)
    assert unnested(cursor, kind, made(given)) == given.tolist()


def test_doubles_arrive_bit_for_bit(cursor: psycopg.Cursor[Any]) -> None:
    given = np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 500).view(np.float64)
    given[:5] = [0.0, -0.0, np.nan, np.inf, 5e-324]
    back = np.array(unnested(cursor, "float8", Float8(given)))
    ordinary = ~np.isnan(given)
    assert np.array_equal(back[ordinary].view(np.int64), given[ordinary].view(np.int64))
    assert np.isnan(back[~ordinary]).all()


def test_moments_are_microseconds_since_1970(cursor: psycopg.Cursor[Any]) -> None:
    given = np.array([0, 1, 1_704_067_200_000_001], dtype=np.int64)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    found = unnested(cursor, "timestamptz", Moments(given))
    assert [(at - epoch) // dt.timedelta(microseconds=1) for at in found] == given.tolist()


def test_no_rows_are_an_empty_array(cursor: psycopg.Cursor[Any]) -> None:
    assert unnested(cursor, "bigint", Int8(np.zeros(0, dtype=np.int64))) == []


def test_columns_that_do_not_lie_in_one_piece_and_tables_come_in_order(
    cursor: psycopg.Cursor[Any],
) -> None:
    wide = np.arange(60, dtype=np.int32).reshape(20, 3)
    assert unnested(cursor, "integer", Int4(wide[::2, 1])) == wide[::2, 1].tolist()
    assert unnested(cursor, "integer", Int4(wide[::-2])) == wide[::-2].reshape(-1).tolist()
