"""A log line is an event's name and its fields, and never a password."""

from __future__ import annotations

import logging

from config.addresses import django_database, without_password
from config.logs import EventFormatter, RepeatFilter


def _line(message: str, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"msg": message, "levelname": "INFO", "levelno": logging.INFO, **fields}
    )
    return EventFormatter().format(record)


def test_fields_follow_the_events_name() -> None:
    line = _line("batch.committed", events=500, took_s=0.123456789, source="room 1")
    assert line.endswith("INFO  batch.committed events=500 took_s=0.123457 source='room 1'")


def test_the_same_warning_comes_once_in_a_while_and_then_counted() -> None:
    repeat = RepeatFilter(window_s=10)
    lines = []
    for second in (0, 1, 2, 11):
        record = logging.makeLogRecord(
            {
                "msg": f"broker away ({second} ms)",
                "levelno": logging.WARNING,
                "created": 100 + second,
            }
        )
        if repeat.filter(record):
            lines.append(EventFormatter().format(record))
    assert len(lines) == 2
    assert lines[1].endswith("repeated=2")


def test_what_is_no_warning_is_never_held_back() -> None:
    repeat = RepeatFilter()
    records = [logging.makeLogRecord({"msg": "same", "levelno": logging.INFO}) for _ in range(5)]
    assert all(repeat.filter(record) for record in records)


def test_passwords_in_addresses_are_hidden() -> None:
    line = _line("redis.lost", url="redis://:hunter2@127.0.0.1:6379/0")
    assert "hunter2" not in line
    assert "redis://:***@127.0.0.1:6379/0" in line
    assert without_password("postgresql://u:p@h/d?host=x") == "postgresql://u:***@h/d?host=x"


def test_a_sockets_address_becomes_djangos_settings() -> None:
    database = django_database("postgresql://postgres:@/postgres?host=/run/vigil&sslmode=disable")
    assert (database["NAME"], database["USER"], database["HOST"]) == (
        "postgres",
        "postgres",
        "/run/vigil",
    )
    assert database["OPTIONS"] == {"sslmode": "disable"}
