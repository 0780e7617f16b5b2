"""Columns arrive in PostgreSQL bit for bit through the binary COPY."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import psycopg
import pytest
from django.db import connection

from streams import copybinary

TABLE = """
CREATE TEMP TABLE stage_copy (
    small smallint, whole integer, large bigint, number float8, moment timestamptz, many integer[]
) ON COMMIT DROP
"""


@pytest.fixture
def raw(db: None) -> psycopg.Connection:
    connection.ensure_connection()
    connection.connection.execute(TABLE)
    made: psycopg.Connection = connection.connection
    return made


def test_every_type_arrives_exactly(raw: psycopg.Connection) -> None:
    rng = np.random.default_rng(2)
    n = 500
    number = rng.integers(-(2**63), 2**63 - 1, n).view(np.float64)
    number[:5] = [0.0, -0.0, np.nan, np.inf, 5e-324]
    moment = rng.integers(0, 4_000_000_000_000_000, n)
    columns: dict[str, Any] = {
        "small": rng.integers(-(2**15), 2**15, n).astype(np.int16),
        "whole": rng.integers(-(2**31), 2**31, n).astype(np.int32),
        "large": rng.integers(-(2**63), 2**63 - 1, n),
        "number": number,
        "moment": copybinary.timestamps(moment),
        "many": rng.integers(-(2**31), 2**31, (n, 20)).astype(np.int32),
    }
    with raw.cursor() as cursor:
        copybinary.copy(cursor, "stage_copy", columns)
    rows = raw.execute("SELECT * FROM stage_copy").fetchall()
    found = list(zip(*rows, strict=True))
    for at, name in ((0, "small"), (1, "whole"), (2, "large")):
        assert list(found[at]) == columns[name].tolist()
    back = np.array(found[3])
    ordinary = ~np.isnan(number)
    assert np.array_equal(back[ordinary].view(np.int64), number[ordinary].view(np.int64))
    assert np.isnan(back[~ordinary]).all()
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert [(at - epoch) // dt.timedelta(microseconds=1) for at in found[4]] == moment.tolist()
    assert [list(many) for many in found[5]] == columns["many"].tolist()


def test_no_rows_are_a_valid_copy(raw: psycopg.Connection) -> None:
    with raw.cursor() as cursor:
        copybinary.copy(cursor, "stage_copy", {"large": np.zeros(0, dtype=np.int64)})
    assert raw.execute("SELECT count(*) FROM stage_copy").fetchone() == (0,)


def test_columns_that_do_not_lie_in_one_piece_are_copied_as_well(raw: psycopg.Connection) -> None:
    wide = np.arange(60, dtype=np.int32).reshape(20, 3)
    with raw.cursor() as cursor:
        copybinary.copy(cursor, "stage_copy", {"whole": wide[::2, 1], "many": wide[::-2]})
    rows = raw.execute("SELECT whole, many FROM stage_copy ORDER BY whole").fetchall()
    assert [row[0] for row in rows] == wide[::2, 1].tolist()
    assert sorted(row[1] for row in rows) == sorted(wide[::-2].tolist())


def test_bytes_of_any_length_come_last_and_arrive_exactly(raw: psycopg.Connection) -> None:
    raw.execute("CREATE TEMP TABLE stage_bytes (n bigint, name text, data bytea) ON COMMIT DROP")
    data = [bytes(range(256)) * i for i in (0, 1, 40)]
    names = ["", "é 漢", "x" * 1000]
    columns: dict[str, copybinary.Column] = {
        "n": np.arange(3), "name": [n.encode() for n in names], "data": data,
    }  # fmt: skip
    with raw.cursor() as cursor:
        copybinary.copy(cursor, "stage_bytes", columns)
        copybinary.copy(cursor, "stage_bytes", {"n": np.zeros(0, np.int64), "data": []})
    rows = raw.execute("SELECT n, name, data FROM stage_bytes ORDER BY n").fetchall()
    assert [(n, name, bytes(d)) for n, name, d in rows] == list(
        zip(range(3), names, data, strict=True)
    )
    with pytest.raises(ValueError, match="come after"):
        copybinary.encode({"data": data, "n": np.arange(3)})
