"""Series names: codes in order of arrival, ids from the database, names that can be stored."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from django.db import connection

from streams.models import Series, Stream
from streams.series import MAX_NAME, SeriesIndex, SeriesNameError, check_name
from streams.series_store import SeriesStore


@pytest.mark.parametrize(
    "name", ["", " ", "\t", "a\x00b", "a\nb", "\x7f", "\ud800", "x" * (MAX_NAME + 1)]
)
def test_names_that_nobody_could_handle_are_refused(name: str) -> None:
    with pytest.raises(SeriesNameError, match="source"):
        check_name("source", name)
    index = SeriesIndex()
    with pytest.raises(SeriesNameError):
        index.code("ok", name)
    assert len(index) == 0


@pytest.mark.parametrize(
    "name", ["a", "ä 漢 😀", "x" * MAX_NAME, "a/b?c=d&e", "'; DROP TABLE", "\\"]
)
def test_all_others_are_fine(name: str) -> None:
    index = SeriesIndex()
    assert index.code(name, name) == index.code(name, name) == 0


def test_codes_are_given_in_order_and_ids_grow_with_them() -> None:
    index = SeriesIndex()
    codes = [index.code(f"s{i}", "m") for i in range(3_000)]
    assert codes == list(range(3_000))
    assert len(index.unstored()) == 3_000
    index.learn_ids(np.array([5, 2_999]), np.array([70, 71]))
    assert index.ids[[5, 2_999]].tolist() == [70, 71]
    assert len(index.unstored()) == 2_998


@pytest.mark.django_db(transaction=True)
def test_processes_that_store_the_same_series_at_once_get_the_same_ids() -> None:
    stream = Stream.objects.create(name="raw", topic="raw")
    names = [(f"s{i % 40}", f"m{i // 40}") for i in range(400)]
    found: list[dict[tuple[str, str], int]] = []
    failed: list[BaseException] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        try:
            index = SeriesIndex()
            for at in np.random.default_rng(seed).permutation(len(names)).tolist():
                index.code(*names[at])
            start.wait(10)
            SeriesStore().ensure(stream, index)
            found.append(dict(zip(index.names, index.ids.tolist(), strict=True)))
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert found[0] == found[1] == found[2] == found[3]
    assert Series.objects.count() == 400
    stored = SeriesStore().names(list(found[0].values()))
    assert {pk: name for name, pk in found[0].items()} == stored
