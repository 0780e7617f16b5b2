"""What people see of the configuration: checks, refusals, topics, the schedule, the first admin."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django_celery_beat.models import PeriodicTask
from pytest_django import Settings

from config.schedule import SCHEDULE, ensure_schedule
from config.schema import Kafka, VigilConfig
from detection.models import ThresholdPolicy

PROJECT = Path(__file__).parents[2]


def _manage(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=PROJECT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def bad_config(tmp_path: Path) -> str:
    path = tmp_path / "vigil.yaml"
    path.write_text("kafka:\n  batch_sise: 5\n", encoding="utf-8")
    return str(path)


def test_check_lists_mistakes_with_an_id_and_no_traceback(bad_config: str) -> None:
    done = _manage("check", VIGIL_CONFIG=bad_config)
    assert done.returncode == 1
    assert "config.E001" in done.stderr
    assert "line 2: kafka.batch_sise" in done.stderr
    assert "did you mean batch_size?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["migrate", "topics"])
def test_nothing_else_starts_with_mistakes(bad_config: str, command: str) -> None:
    done = _manage(command, VIGIL_CONFIG=bad_config)
    assert done.returncode == 1
    assert "Vigil can't start" in done.stderr
    assert "did you mean batch_size?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_database_address_is_told_without_its_password() -> None:
    done = _manage("check", DATABASE_URL="mysql://user:hunter2@db/vigil")
    assert done.returncode == 1
    assert "DATABASE_URL" in done.stderr
    assert "postgresql://user:password@host:5432/name" in done.stderr
    assert "hunter2" not in done.stderr


def test_topics_are_made_once_with_partitions_and_retention(
    settings: Settings, kafka: str, kafka_admin: AdminClient
) -> None:
    mark = uuid.uuid4().hex[:8]
    config = _topics_of(kafka, mark, partitions=3)
    settings.VIGIL = config
    first, second = io.StringIO(), io.StringIO()
    call_command("topics", stdout=first)
    call_command("topics", stdout=second)
    assert first.getvalue().count(": made, 3 partitions, kept 1.5 h") == 5
    assert second.getvalue().splitlines() == [f"{name}: exists" for name in config.topics]
    topics = kafka_admin.list_topics(timeout=10).topics
    assert [len(topics[name].partitions) for name in config.topics] == [3] * 5
    resource = ConfigResource(ResourceType.TOPIC, config.kafka.input_topic)
    described = kafka_admin.describe_configs([resource])[resource].result(10)
    assert described["retention.ms"].value == str(int(1.5 * 3_600_000))
    settings.VIGIL = _topics_of(kafka, mark, partitions=5)
    third = io.StringIO()
    call_command("topics", stdout=third)
    assert "exists (3 partitions, the settings say 5; left so)" in third.getvalue()


def test_topics_without_kafka_say_what_to_do(settings: Settings) -> None:
    settings.VIGIL = VigilConfig(kafka=Kafka(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(CommandError, match=r"Kafka at 127\.0\.0\.1:1 can't be used") as error:
        call_command("topics", timeout=1.0)
    assert "KAFKA_BOOTSTRAP_SERVERS" in str(error.value)


@pytest.mark.django_db
def test_the_schedule_is_there_after_migrating_and_edits_stay() -> None:
    assert set(PeriodicTask.objects.values_list("name", flat=True)) >= {s.name for s in SCHEDULE}
    training = PeriodicTask.objects.get(task="detection.tasks.train_models")
    assert (training.queue, training.interval.every) == ("training", 60)
    training.enabled = False
    training.save()
    assert ensure_schedule() == []
    training.refresh_from_db()
    assert training.enabled is False


@pytest.mark.django_db
def test_the_first_admin_is_made_once(
    settings: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIGIL = _topics_of(kafka, uuid.uuid4().hex[:8], partitions=1)
    monkeypatch.setenv("VIGIL_ADMIN_PASSWORD", "of-the-environment")
    said = io.StringIO()
    call_command("bootstrap", stdout=said)
    admin = get_user_model().objects.get(username="admin")
    assert admin.check_password("of-the-environment")
    assert admin.is_superuser
    assert not ThresholdPolicy.objects.exists()
    assert "of-the-environment" not in said.getvalue()
    monkeypatch.setenv("VIGIL_ADMIN_PASSWORD", "another")
    call_command("bootstrap", stdout=io.StringIO())
    admin.refresh_from_db()
    assert admin.check_password("of-the-environment")


@pytest.mark.django_db
def test_the_demo_tells_every_fault_unless_its_policy_was_taken_away(
    settings: Settings, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.VIGIL = _topics_of(kafka, uuid.uuid4().hex[:8], partitions=1)
    monkeypatch.setenv("VIGIL_ADMIN_PASSWORD", "of-the-environment")
    call_command("bootstrap", demo=True, stdout=io.StringIO())
    assert ThresholdPolicy.objects.get().max_onsets_per_day == 0
    ThresholdPolicy.objects.all().delete()
    call_command("bootstrap", demo=True, stdout=io.StringIO())
    assert not ThresholdPolicy.objects.exists()


def _topics_of(kafka: str, mark: str, *, partitions: int) -> VigilConfig:
    return VigilConfig(
        kafka=Kafka(
            bootstrap_servers=kafka,
            input_topic=f"in-{mark}",
            output_topic=f"out-{mark}",
            statistics_topic=f"stats-{mark}",
            dead_letter_topic=f"dead-{mark}",
            alerts_topic=f"alerts-{mark}",
            partitions=partitions,
            retention_hours=1.5,
        )
    )
