"""File, environment and embedded servers become one configuration, or a clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from config.loading import ConfigError, Loaded, load, secret_value
from config.schema import Stream, VigilConfig

SHIPPED = Path(__file__).parents[2] / "config" / "config.yaml"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str, environ: dict[str, str] | None = None, **more: Any) -> Loaded:
        path = tmp_path / "vigil.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {}, **more)

    return write


def _problem(error: pytest.ExceptionInfo[ConfigError]) -> str:
    assert len(error.value.problems) == 1
    return error.value.problems[0].text()


def test_the_shipped_file_says_the_defaults() -> None:
    shipped = load(SHIPPED, {}).config
    defaults = VigilConfig()
    # What depends on where Vigil runs is filled in when loading.
    filled = {"api": defaults.api, "dashboard": defaults.dashboard}
    assert shipped.model_copy(update=filled) == defaults
    assert shipped.dashboard.model_copy(update={"https": None}) == defaults.dashboard


def test_the_documented_keys_and_defaults() -> None:
    config = load(SHIPPED, {}).config
    assert config.kafka.input_topic == "raw-data"
    assert config.kafka.output_topic == "anomaly-results"
    assert config.kafka.group_id == "anomaly-detection-group"
    assert (config.anomaly_detection.method, config.anomaly_detection.threshold) == (
        "ensemble",
        0.8,
    )
    assert config.anomaly_detection.detectors.statistical.method == ("zscore",)
    assert config.anomaly_detection.detectors.statistical.threshold == 3.0
    assert (config.dashboard.port, config.dashboard.websocket_enabled) == (8000, True)
    assert config.streams == (Stream(name="raw-data"),)
    assert config.topic_of(config.streams[0]) == "raw-data"


def test_environment_wins_over_file_and_file_over_embedded(written: Any) -> None:
    embedded = {"KAFKA_BOOTSTRAP_SERVERS": "embedded:1", "REDIS_URL": "redis://embedded"}
    assert written("", embedded=embedded).config.kafka.bootstrap_servers == "embedded:1"
    text = "kafka: {bootstrap_servers: 'file:2'}"
    loaded = written(text, embedded=embedded)
    assert loaded.config.kafka.bootstrap_servers == "file:2"
    assert loaded.named("kafka", "bootstrap_servers")
    assert not loaded.named("redis", "url")
    loaded = written(text, {"KAFKA_BOOTSTRAP_SERVERS": "env:3"}, embedded=embedded)
    assert loaded.config.kafka.bootstrap_servers == "env:3"


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("VIGIL_KAFKA__BATCH_SIZE", "500", "kafka.batch_size", 500),
        ("VIGIL_ANOMALY_DETECTION__THRESHOLD", "0.9", "anomaly_detection.threshold", 0.9),
        (
            "VIGIL_ANOMALY_DETECTION__DETECTORS__STATISTICAL__THRESHOLD",
            "2.5",
            "anomaly_detection.detectors.statistical.threshold",
            2.5,
        ),
        ("VIGIL_DASHBOARD__WEBSOCKET_ENABLED", "false", "dashboard.websocket_enabled", False),
        ("VIGIL_DASHBOARD__ALLOWED_HOSTS", "a.example, b.example", "dashboard.allowed_hosts",
         ("a.example", "b.example")),
        ("VIGIL_KAFKA__GROUP_INSTANCE_ID", "7", "kafka.group_instance_id", "7"),
        ("VIGIL_ANOMALY_DETECTION__WEIGHTS", '{"online": 2}', "anomaly_detection.weights",
         {"online": 2.0}),
        ("VIGIL_ANOMALY_DETECTION__COMBINE", "vote", "anomaly_detection.combine", "vote"),
        ("VIGIL_ANOMALY_DETECTION__DETECTORS__STATISTICAL__METHOD", "mad, seasonal",
         "anomaly_detection.detectors.statistical.method", ("mad", "seasonal")),
        ("VIGIL_ANOMALY_DETECTION__DETECTORS__CHANGE_POINT__ENABLED", "true",
         "anomaly_detection.detectors.change_point.enabled", True),
        ("VIGIL_CONSUMER__METRICS_PORT", "9101", "consumer.metrics_port", 9101),
        ("VIGIL_API__TOKEN", "let-me-in", "api.token", SecretStr("let-me-in")),
    ],
)  # fmt: skip
def test_every_key_can_come_from_the_environment(
    written: Any, name: str, value: str, path: str, expected: object
) -> None:
    found: Any = written("", {name: value}).config
    for part in path.split("."):
        found = getattr(found, part)
    assert found == expected


def test_streams_from_the_environment(written: Any) -> None:
    config = written("", {"VIGIL_STREAMS": '[{"name": "pay", "topic": "payments"}]'}).config
    assert [config.topic_of(stream) for stream in config.streams] == ["payments"]
    text = "streams: [{name: raw-data}, {name: pay, topic: payments}]"
    config = written(text, {"VIGIL_STREAMS__1__TIME_ZONE": "Europe/Berlin"}).config
    assert [stream.time_zone for stream in config.streams] == ["UTC", "Europe/Berlin"]
    assert config.topics[-1] == "payments"


def test_a_variable_that_is_set_and_empty_counts_as_unset(written: Any) -> None:
    assert written("", {"VIGIL_KAFKA__BATCH_SIZE": ""}).config.kafka.batch_size == 40_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka:\n  batch_sizes: 5", ["line 2: kafka.batch_sizes", "did you mean batch_size?"]),
        ("kafka:\n  batch_size: many", ["line 2: kafka.batch_size", "'many'", "a valid integer"]),
        ("anomaly_detection: {threshold: 2}", ["detection.threshold", "less than or equal to 1"]),
        ("anomaly_detection: {emit: some}", ["found:   'some'", "'anomalies' or 'all'"]),
        ("anomaly_detection: {weights: {foo: 1}}", ["known detectors", "'foo'"]),
        ("anomaly_detection: {detectors: {statistical: {method: arima}}}",
         ["detectors.statistical.method", "'arima'", "zscore, mad, ewma, iqr, seasonal"]),
        ("anomaly_detection: {detectors: {statistical: {method: [mad, mad]}}}", ["each once"]),
        ("anomaly_detection: {detectors: {statistical: {method: []}}}", ["or a list of them"]),
        ("anomaly_detection: {detectors: {statistical: {method: 3}}}", ["found:   3", "iqr"]),
        ("streams: [{name: a, time_zone: Mars/X}]", ["streams.0.time_zone", "Europe/Berlin"]),
        ("streams: [{name: a, mapping: {sorce: x}}]", ["streams.0.mapping.sorce", "source?"]),
        ("streams: []", ["streams", "at least one stream"]),
        ("streams: [{name: a}, {name: a, topic: b}]", ["each name only once", "'a'"]),
        ("kafka: {input_topic: 'a b'}", ["kafka.input_topic", "'a b'", "letters, digits"]),
        ("kafka: 5", ["kafka", "found:   5"]),
        ("kafca: {}", ["kafca", "did you mean kafka?"]),
        ("kafka: {sasl_password: hunter2}", ["kafka.sasl_password", "VIGIL_KAFKA__SASL_PASSWORD"]),
        ("database: {url: 'postgresql://u:hunter2@h/d'}", ["database.url", "DATABASE_URL"]),
        ("kafka: {batch_size: 5}\nkafka: {batch_size: 6}", ["line 2: kafka", "a second time"]),
        ("kafka: [", ["vigil.yaml, line 1", "YAML"]),
        ("- a", ["a list at the top", "sections such as kafka:"]),
    ],
)  # fmt: skip
def test_a_mistake_names_place_key_found_and_allowed(
    written: Any, text: str, said: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        written(text)
    message = _problem(error)
    assert "vigil.yaml" in message
    assert "found:" in message
    assert "allowed:" in message
    assert [part for part in said if part not in message] == []
    assert "hunter2" not in message


def test_a_mistake_in_the_environment_names_the_variable(written: Any) -> None:
    with pytest.raises(ConfigError) as error:
        written("", {"VIGIL_DASHBOARD__PORT": "http"})
    assert "environment variable VIGIL_DASHBOARD__PORT: dashboard.port" in _problem(error)
    with pytest.raises(ConfigError) as error:
        written("", {"VIGIL_DASHBORD__PORT": "1"})
    assert "did you mean dashboard?" in _problem(error)


def test_all_mistakes_are_told_at_once(written: Any) -> None:
    with pytest.raises(ConfigError) as error:
        written("kafka: {batch_size: 0, x: 1}", {"VIGIL_API__OPEN": "perhaps"})
    assert len(error.value.problems) == 3


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "none.yaml", {})
    assert "none.yaml" in _problem(error)
    assert "VIGIL_CONFIG" in _problem(error)


def test_secrets_come_from_the_environment_or_a_file_and_are_not_shown(
    written: Any, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("from-file\n", encoding="utf-8")
    for name, value, expected in (
        ("VIGIL_KAFKA__SASL_PASSWORD", "from-env", "from-env"),
        ("VIGIL_KAFKA__SASL_PASSWORD_FILE", str(file), "from-file"),
    ):
        kafka = written("kafka: {security_protocol: SASL_SSL}", {name: value}).config.kafka
        assert kafka.client_config()["sasl.password"] == expected
        assert expected not in repr(kafka)
        assert expected not in kafka.model_dump_json()
    loaded = written("", {"DATABASE_URL_FILE": str(file)})
    assert loaded.config.database.url.get_secret_value() == "from-file"
    assert loaded.named("database", "url")
    with pytest.raises(ConfigError, match="SECRET_KEY_FILE"):
        secret_value({"SECRET_KEY_FILE": str(tmp_path / "none")}, "SECRET_KEY")


@pytest.mark.parametrize(
    ("environ", "is_open", "https"),
    [
        ({}, True, False),
        ({"VIGIL_DASHBOARD__HOST": "0.0.0.0"}, False, False),
        ({"DATABASE_URL": "postgresql://db"}, False, False),
        ({"DATABASE_URL": "postgresql://db", "VIGIL_DASHBOARD__HOST": "0.0.0.0"}, False, True),
        ({"DATABASE_URL": "postgresql://db", "VIGIL_EMBEDDED": "1"}, True, False),
        ({"DATABASE_URL": "postgresql://db", "VIGIL_API__OPEN": "true"}, True, False),
    ],
)
def test_the_api_is_open_only_with_embedded_servers_on_loopback(
    written: Any, environ: dict[str, str], is_open: bool, https: bool
) -> None:
    config = written("", environ).config
    assert (config.api.open, config.dashboard.https) == (is_open, https)


def test_the_configuration_is_frozen(written: Any) -> None:
    config = written("").config
    with pytest.raises(ValidationError):
        config.kafka.batch_size = 5
