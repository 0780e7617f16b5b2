"""`manage.py produce` and the producer, against a real broker."""

from __future__ import annotations

import json
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from django.core.management import CommandError, call_command

from streams.clock import SystemClock
from streams.codec import Codec
from streams.connectors import demo
from streams.connectors.pace import Stop
from streams.connectors.synthetic import JsonEncoder
from streams.connectors.topic import ensure_topic, newest_messages
from streams.errors import BrokerError, DeliveryError
from streams.management.commands import produce
from streams.producer import TopicProducer
from streams.series import SeriesIndex
from streams.timestamps import parse_one
from tests.conftest import MakeTopic

Client = dict[str, Any]


@pytest.fixture
def client(kafka: str) -> Client:
    return {"bootstrap.servers": kafka}


def run(*words: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("produce", *words, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def events_of(client: Client, topic: str) -> list[dict[str, Any]]:
    return [json.loads(m.value() or b"") for m in newest_messages(client, topic, 10**7)]


def test_synthetic_events_arrive_keyed_and_are_good(
    client: Client, topic: MakeTopic, tmp_path: Path
) -> None:
    name, truth = topic(3), tmp_path / "truth.csv"
    out, _ = run(
        "synthetic", "--topic", name, "--sources", "8", "--metrics", "cpu_usage,temperature",
        "--interval", "1m", "--duration", "1d", "--start", "2024-01-01T00:00:00Z",
        "--truth", str(truth), "--faults-per-series-day", "1",
    )  # fmt: skip
    assert "23,040 events of 16 series" in out
    assert f"{name} (3 partitions)" in out
    messages: list[Any] = newest_messages(client, name, 10**7)
    assert all(m.key() == json.loads(m.value() or b"")["source"].encode() for m in messages)
    homes = {(m.key(), m.partition()) for m in messages}
    assert len(homes) == 8
    decoded = Codec(SeriesIndex()).decode(messages)
    assert (len(decoded.batch), len(decoded.rejects)) == (23_040, 0)
    assert truth.read_text().count("\n") > 5


def test_a_second_run_writes_the_same(client: Client, topic: MakeTopic) -> None:
    names = [topic(), topic()]
    for name in names:
        run("synthetic", "--topic", name, "--sources", "2", "--interval", "1m", "--duration", "2h",
            "--start", "2024-01-01T00:00:00Z", "--wide")  # fmt: skip
    first, second = ([m.value() for m in newest_messages(client, n, 10**6)] for n in names)
    assert first == second
    assert len(first) == 240


def test_a_rate_is_kept(topic: MakeTopic) -> None:
    began = time.monotonic()
    run("synthetic", "--topic", topic(), "--sources", "1", "--interval", "1s", "--duration", "200s",
        "--metrics", "cpu_usage", "--rate", "200")  # fmt: skip
    assert 0.9 < time.monotonic() - began < 3


def test_a_missing_topic_is_made(client: Client, kafka_admin: AdminClient) -> None:
    name = f"made-{time.time_ns()}"
    out, _ = run("demo", "--history", "10m", "--history-only", "--topic", name, "--partitions", "2")
    assert f"topic {name} made" in out
    assert len(kafka_admin.list_topics(timeout=5).topics[name].partitions) == 2
    assert ensure_topic(client, name, partitions=2) is False
    kafka_admin.delete_topics([name])[name].result(10)


def test_the_demo_goes_on_where_it_was_stopped(client: Client, topic: MakeTopic) -> None:
    name = topic(3)
    run("demo", "--topic", name, "--history", "1h", "--interval", "1s", "--history-only")
    out, _ = run("demo", "--topic", name, "--history", "1h", "--interval", "1s", "--history-only")
    assert "going on from there" in out
    seen: dict[tuple[str, str], list[str]] = {}
    for event in events_of(client, name):
        seen.setdefault((event["source"], event["metric"]), []).append(event["timestamp"])
    assert len(seen) == 18
    for times in seen.values():
        assert len(set(times)) == len(times)
        first, last = (parse_one(times[i]) for i in (0, -1))
        assert last - first == (len(times) - 1) * 1_000_000


def test_the_demo_writes_its_history_anew_where_the_topic_is_too_old(
    client: Client, topic: MakeTopic
) -> None:
    name = topic()
    run("synthetic", "--topic", name, "--start", "2024-01-01T00:00:00Z", "--duration", "1m")
    out, _ = run("demo", "--topic", name, "--history", "10m", "--history-only")
    assert "going on" not in out
    assert "1,080 events" in out


def test_live_events_come_at_their_time(client: Client, topic: MakeTopic) -> None:
    name, stop, clock = topic(), Stop(), SystemClock()
    start = clock.now_us()
    world = demo.demo_world(2, 200_000, 7, start)
    encoder = JsonEncoder(world.lines)
    with TopicProducer(client) as producer:
        live = threading.Thread(
            target=demo.go_live,
            args=(world, producer, name, start),
            kwargs={"clock": clock, "stop": stop, "encoder": encoder},
        )
        live.start()
        time.sleep(1.5)
        stop.set()
        live.join(5)
    times = [parse_one(event["timestamp"]) for event in events_of(client, name)]
    assert 30 <= len(times) <= 60
    assert times == sorted(times)
    assert min(times) >= start


def test_files_arrive_and_are_summed_up(client: Client, topic: MakeTopic, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("timestamp,value\n2024-01-01 12:00:00,1\nbad,2\n")
    (tmp_path / "more.jsonl").write_text('{"time": 1704110401, "cpu": 2, "mem": 3}\n{"time"\n')
    name = topic(2)
    out, err = run("file", str(tmp_path), "--topic", name)
    assert "2 files, 3 events, 2 rejected" in out
    assert "taken as UTC" in out
    assert "good.csv:3: 'bad' is not ISO 8601" in err
    assert "more.jsonl:2: no JSON" in err
    events = {(e["source"], e["metric"], e["value"]) for e in events_of(client, name)}
    assert events == {("good", "value", 1.0), ("more", "cpu", 2.0), ("more", "mem", 3.0)}


def test_recorded_speed_keeps_the_distances(topic: MakeTopic, tmp_path: Path) -> None:
    rows = "".join(f"2024-01-01 12:{minute:02}:00,{minute}\n" for minute in range(11))
    (tmp_path / "x.csv").write_text("timestamp,value\n" + rows)
    began = time.monotonic()
    out, _ = run("file", str(tmp_path / "x.csv"), "--topic", topic(), "--speed", "600x")
    assert 1.0 <= time.monotonic() - began < 3
    assert "11 events" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("file", "nowhere.csv"), "no such file"),
        (("file", "{dir}/bad.csv", "--on-error", "stop"), r"bad\.csv:3.*--on-error skip"),
        (("file", "{dir}/none.csv"), "no row of these files became an event"),
        (("file", "{dir}/bad.csv", "--time-zone", "Mars"), "IANA time zone"),
        (("file", "{dir}/bad.csv", "--delimiter", ";;"), "one character"),
        (("file", "{dir}/bad.csv", "--source", "a", "--source-name", "b"), "exclude each other"),
        (("file", "{dir}/bad.csv", "--speed", "fast"), "is no speed"),
        (("synthetic", "--interval", "10"), "is no duration"),
        (("synthetic", "--start", "soon"), "Write now, now-2d"),
        (("synthetic", "--rate", "0"), "is no rate"),
        (("synthetic", "--sources", "0"), "is no count"),
        (("synthetic", "--truth", "{dir}/no/such.csv"), "can't be written"),
    ],
)
def test_mistakes_are_told_to_people(
    topic: MakeTopic, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    (tmp_path / "bad.csv").write_text("timestamp,value\n2024-01-01 12:00:00,1\nx,2\n")
    (tmp_path / "none.csv").write_text("timestamp,value\n2024-01-01 12:00:00,x\n")
    filled = [word.replace("{dir}", str(tmp_path)) for word in words]
    with pytest.raises(CommandError, match=says):
        run(*filled, "--topic", topic(), *(("--value", "value") if "none" in words[1] else ()))


def test_without_a_broker_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.connectors.topic.TIMEOUT_S", 0.5)
    with pytest.raises(CommandError, match=r"no Kafka broker answers at 127\.0\.0\.1:1:"):
        run("demo", "--bootstrap-servers", "127.0.0.1:1")
    with pytest.raises(BrokerError):
        newest_messages({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "x", 1)


def test_messages_that_the_broker_refuses_are_told_at_flush(
    client: Client, topic: MakeTopic
) -> None:
    name = topic(max_message_bytes="1000")
    producer = TopicProducer(client, compression="none")
    producer.send(name, b"x" * 500)
    producer.flush(10)
    producer.send(name, b"x" * 5_000)
    with pytest.raises(DeliveryError, match="1 refused") as caught:
        producer.flush(10)
    assert caught.value.failed == 1
    producer.send(name, b"y")
    producer.close(10)
    assert len(newest_messages(client, name, 10)) == 2


def test_a_full_queue_slows_the_sender_down_and_loses_nothing(
    client: Client, topic: MakeTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.producer.QUEUED_MESSAGES", 1_000)
    name = topic()
    with TopicProducer(client) as producer:
        assert producer.send_many(name, ((b"k", str(i).encode()) for i in range(20_000))) == 20_000
    values = [m.value() for m in newest_messages(client, name, 10**6)]
    assert values == [str(i).encode() for i in range(20_000)]


def test_many_bad_rows_are_counted_and_only_the_first_are_shown(
    topic: MakeTopic, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(
        "timestamp,value\n2024-01-01 12:00:00,1\n" + "no time,1\n" * 100
    )
    out, err = run("file", str(tmp_path / "x.csv"), "--topic", topic())
    assert "100 rejected" in out
    assert len(err.splitlines()) == produce.SHOWN_BAD_ROWS + 1
