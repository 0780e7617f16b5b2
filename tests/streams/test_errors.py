"""What counts as the database being away."""

from __future__ import annotations

import pytest
from django.db import connections

from streams.errors import DATABASE_AWAY
from tests.integration.harness import await_until


@pytest.mark.django_db(transaction=True)
def test_a_session_that_the_server_ended_within_a_transaction_is_tried_again() -> None:
    """PostgreSQL tells it by a class of errors that else means a fault of the program."""
    connection = connections["default"].copy("ended")
    try:
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            (pid,) = cursor.fetchone()
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
            await_until(lambda: not alive(pid))
            with pytest.raises(DATABASE_AWAY):
                cursor.execute("SELECT 1")
    finally:
        connection.close()


def alive(pid: int) -> bool:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid])
        return bool(cursor.fetchone()[0])
