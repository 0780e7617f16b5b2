"""The whole of config.yaml as frozen pydantic models: every key, its default and what it may be.

Reading the file and the environment is `config.loading`; this module knows neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _topic(name: str) -> str:
    if not TOPIC_NAME.fullmatch(name) or name in {".", ".."}:
        raise ValueError("a topic name: 1 to 249 of letters, digits, '.', '_' and '-'")
    return name


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone such as UTC or Europe/Berlin") from None
    return name


def _listed(value: Any) -> Any:
    """`a,b` from the environment is a list; a JSON list is one as well."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


STATISTICAL_METHODS = ("zscore", "mad", "ewma", "iqr", "seasonal")


def _methods(value: Any) -> Any:
    """One method or several, each once."""
    given = _listed(value)
    names = tuple(given) if isinstance(given, list | tuple) else ()
    known = all(name in STATISTICAL_METHODS for name in names)
    if not names or not known or len(set(names)) < len(names):
        one_of = ", ".join(STATISTICAL_METHODS)
        raise ValueError(f"one of {one_of}, or a list of them, each once: [zscore, seasonal]")
    return names


Topic = Annotated[str, AfterValidator(_topic)]
Zone = Annotated[str, AfterValidator(_zone)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Methods = Annotated[tuple[str, ...], BeforeValidator(_methods)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
NonEmpty = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Kafka(Section):
    """Where the events come from and the results go."""

    bootstrap_servers: NonEmpty = "127.0.0.1:9092"
    input_topic: Topic = "raw-data"
    output_topic: Topic = "anomaly-results"
    statistics_topic: Topic = "statistics"
    dead_letter_topic: Topic = "dead-letters"
    alerts_topic: Topic = "alerts"
    group_id: NonEmpty = "anomaly-detection-group"
    group_instance_id: NonEmpty | None = None
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 4
    replication_factor: Annotated[int, Field(ge=1, le=100)] = 1
    retention_hours: Positive = 168.0
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 40_000
    batch_wait_ms: Annotated[int, Field(ge=1, le=60_000)] = 50
    session_timeout_ms: Annotated[int, Field(ge=1_000, le=1_800_000)] = 45_000
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"] | None
    ) = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: str | None = None
    ssl_certificate_location: str | None = None
    ssl_key_location: str | None = None
    ssl_key_password: SecretStr | None = None

    @property
    def own_topics(self) -> tuple[str, ...]:
        """The topics that Vigil itself reads or writes, the streams' own ones aside."""
        return (
            self.input_topic,
            self.output_topic,
            self.statistics_topic,
            self.dead_letter_topic,
            self.alerts_topic,
        )

    def client_config(self) -> dict[str, Any]:
        """librdkafka's settings to connect as; the result holds secrets, so never log it."""
        given: dict[str, str | None] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": _revealed(self.sasl_password),
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": _revealed(self.ssl_key_password),
        }
        return {key: value for key, value in given.items() if value is not None}

    def quiet_client_config(self) -> dict[str, Any]:
        """`client_config` for commands and tasks, which tell of a broker's errors themselves."""
        return self.client_config() | {"log_level": 2}  # syslog's: critical and worse


Contamination = Annotated[float, Field(gt=0, lt=0.5)]


class IsolationForest(Section):
    enabled: bool = True
    contamination: Contamination = 0.01
    n_estimators: Annotated[int, Field(ge=1, le=2_000)] = 100
    max_samples: Annotated[int, Field(ge=2, le=100_000)] = 256


class LocalOutlierFactor(Section):
    enabled: bool = False
    contamination: Contamination = 0.01
    n_neighbors: Annotated[int, Field(ge=1, le=100)] = 20
    max_reference: Annotated[int, Field(ge=200, le=10_000)] = 1_000


class OneClassSvm(Section):
    enabled: bool = False
    contamination: Contamination = 0.01
    nu: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    gamma: Positive | Literal["scale"] = "scale"
    max_samples: Annotated[int, Field(ge=100, le=20_000)] = 3_000


class Statistical(Section):
    enabled: bool = True
    method: Methods = ("zscore",)
    threshold: Positive = 3.0


class ChangePoint(Section):
    enabled: bool = False
    threshold: Positive = 8.0


class Shift(Section):
    enabled: bool = True


class Online(Section):
    enabled: bool = True


class Vector(Section):
    """Wide events: how their values move together."""

    enabled: bool = True
    quiet_events: Count = 10
    relearn_events: Count = 2_000
    drift: Annotated[float, Field(ge=0, lt=1)] = 0.001


class Detectors(Section):
    isolation_forest: IsolationForest = IsolationForest()
    local_outlier_factor: LocalOutlierFactor = LocalOutlierFactor()
    one_class_svm: OneClassSvm = OneClassSvm()
    statistical: Statistical = Statistical()
    change_point: ChangePoint = ChangePoint()
    shift: Shift = Shift()
    online: Online = Online()
    vector: Vector = Vector()

    @property
    def enabled(self) -> tuple[str, ...]:
        return tuple(name for name in type(self).model_fields if getattr(self, name).enabled)


class Registry(Section):
    """When a trained model takes over, and when it has to go again.

    A challenger scores beside the champion and alerts nobody; `auto_challenge` makes one of each
    newly trained model where there is a champion, `auto_promote` promotes it once it passes.
    """

    auto_challenge: bool = True
    auto_promote: bool = False
    shadow_hours: NotNegative = 24.0
    shadow_events: Annotated[int, Field(ge=0)] = 10_000
    max_alerts_per_day_ratio: Positive = 1.2
    spare_alerts_per_day: NotNegative = 1.0
    labels_days: Positive = 90.0
    watch_hours: NotNegative = 1.0
    rollback_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    rollback_floor_per_hour: Positive = 6.0


class Drift(Section):
    """Live distributions of features and scores against those of training."""

    hours: Annotated[int, Field(ge=1, le=720)] = 24
    warn_psi: Positive = 0.1
    alarm_psi: Positive = 0.25
    min_events: Count = 300
    keep_days: Positive = 30.0
    retrain: bool = False

    @model_validator(mode="after")
    def _levels_rise(self) -> Drift:
        if self.warn_psi > self.alarm_psi:
            raise ValueError("warn_psi at most alarm_psi")
        return self


class Silence(Section):
    """A series that falls silent is an anomaly; `least_s` bounds the limits that series learn."""

    enabled: bool = True
    least_s: Positive = 60.0


class AnomalyDetection(Section):
    """Which detectors run, how they are combined and from which score on something is odd."""

    method: Literal["ensemble"] = "ensemble"
    combine: Literal["max", "mean", "weighted", "vote"] = "max"
    threshold: Share = 0.8
    own_tails: bool = True
    max_onsets_per_day: NotNegative = 1.0
    emit: Literal["anomalies", "all"] = "anomalies"
    episode_quiet_events: Count = 80
    max_gap_s: Positive = 86_400.0
    silence: Silence = Silence()
    detectors: Detectors = Detectors()
    weights: dict[str, NotNegative] = {}
    registry: Registry = Registry()
    drift: Drift = Drift()

    @model_validator(mode="after")
    def _weights_name_detectors(self) -> AnomalyDetection:
        names = (*Detectors.model_fields, *STATISTICAL_METHODS)
        unknown = sorted(set(self.weights) - set(names))
        if unknown:
            known = ", ".join(names)
            raise ValueError(f"weights only for known detectors ({known}), not {unknown[0]!r}")
        if not self.detectors.enabled:
            raise ValueError("at least one enabled detector")
        return self


class Dashboard(Section):
    """The web pages. `https` unset means: on, except on loopback or with the embedded servers."""

    host: NonEmpty = "127.0.0.1"
    port: Port = 8000
    websocket_enabled: bool = True
    real_time_updates: bool = True
    keep_s: Annotated[float, Field(ge=0, le=60)] = 3.0
    allowed_hosts: Names = ("localhost", "127.0.0.1", "[::1]")
    https: bool | None = None
    public_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")] | None = None


class Mapping(Section):
    """Field paths such as `payload.device.id` for events of another shape than Vigil's own."""

    source: NonEmpty | None = None
    metric: NonEmpty | None = None
    value: NonEmpty | None = None
    timestamp: NonEmpty | None = None
    values: NonEmpty | None = None


class Stream(Section):
    """One topic that is watched. `topic` unset means `kafka.input_topic`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    topic: Topic | None = None
    time_zone: Zone = "UTC"
    naive_time_zone: Zone | None = None
    mapping: Mapping = Mapping()


class Api(Section):
    """`token` lets a caller in that sends it as `Authorization: Bearer …`; `open` any local one.

    `open` unset means: on with the embedded servers on loopback only. Once loaded it is True or
    False.
    """

    open: bool | None = None
    token: SecretStr | None = None


class Retention(Section):
    """Days that each kind of row is kept."""

    anomalies_days: Positive = 365.0
    candidates_days: Positive = 90.0
    rollups_days: Positive = 90.0
    hours_days: Positive = 730.0
    outbox_days: Positive = 7.0
    dead_letters_days: Positive = 30.0


class Consumer(Section):
    """The consumer's habits: snapshots, flushes and its limits."""

    snapshot_interval_s: Positive = 30.0
    snapshot_chunk_bytes: Annotated[int, Field(ge=10_000, le=100_000_000)] = 1_000_000
    rollup_flush_s: Positive = 2.0
    dead_letter_ratio_limit: Share = 0.5
    max_series: Count = 200_000
    metrics_host: NonEmpty = "127.0.0.1"
    metrics_port: Port | None = None
    config_poll_s: Annotated[float, Field(gt=0, le=5)] = 1.0


def _network(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError("a network such as 10.20.0.0/16 or fd00::/8") from None
    return text


Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_listed)]


class Mail(Section):
    """The SMTP server of e-mail receivers; without a host there are no e-mails."""

    host: NonEmpty | None = None
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: SecretStr | None = None
    sender: NonEmpty = "Vigil <vigil@localhost>"


class Alerts(Section):
    """How notifications go out. `allowed_networks` names those that are not public and may be
    asked by receivers all the same; `dead_man_url` is asked while everything works."""

    mail: Mail = Mail()
    allowed_networks: Networks = ()
    secrets_dir: NonEmpty = "/run/secrets"
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 20
    workers: Annotated[int, Field(ge=1, le=64)] = 4
    claim_s: Annotated[float, Field(ge=20, le=3_600)] = 60.0
    link_hours: Annotated[float, Field(gt=0, le=720)] = 72.0
    dead_man_url: SecretStr | None = None
    dead_man_s: Annotated[float, Field(ge=5, le=86_400)] = 60.0


class Demo(Section):
    """The demo source of `make run`."""

    sources: Annotated[int, Field(ge=1, le=1_000)] = 6
    interval_s: Positive = 10.0
    history_days: Annotated[float, Field(ge=0, le=60)] = 2.0
    seed: int = 7


class Database(Section):
    """PostgreSQL. The address comes from the environment only: it may hold a password."""

    url: SecretStr | None = None
    pool_size: Annotated[int, Field(ge=1, le=200)] = 8


class Redis(Section):
    """Redis or Valkey, for Celery and the live pages. The address comes from the environment."""

    url: SecretStr | None = None


class VigilConfig(Section):
    """Everything that config.yaml may say."""

    kafka: Kafka = Kafka()
    anomaly_detection: AnomalyDetection = AnomalyDetection()
    dashboard: Dashboard = Dashboard()
    streams: tuple[Stream, ...] = (Stream(name="raw-data"),)
    api: Api = Api()
    retention: Retention = Retention()
    consumer: Consumer = Consumer()
    alerts: Alerts = Alerts()
    demo: Demo = Demo()
    database: Database = Database()
    redis: Redis = Redis()

    @model_validator(mode="after")
    def _streams_differ(self) -> VigilConfig:
        if not self.streams:
            raise ValueError("streams: at least one stream")
        for what, given in (
            ("name", [stream.name for stream in self.streams]),
            ("topic", [self.topic_of(stream) for stream in self.streams]),
        ):
            if twice := _first_repeated(given):
                raise ValueError(f"streams: each {what} only once, and {twice!r} comes twice")
        return self

    def topic_of(self, stream: Stream) -> str:
        return stream.topic or self.kafka.input_topic

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that Vigil reads or writes, each once."""
        named = (*self.kafka.own_topics, *(self.topic_of(stream) for stream in self.streams))
        return tuple(dict.fromkeys(named))


def is_secret(section: type[BaseModel], key: str) -> bool:
    """Whether a key may only come from the environment or a file of its own."""
    field = section.model_fields.get(key)
    return field is not None and "SecretStr" in str(field.annotation)


def model_at(key: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The section that a key path leads to, or None where there is none."""
    section: type[BaseModel] | None = VigilConfig
    for part in key:
        if section is Stream and isinstance(part, int):
            continue
        field = section.model_fields.get(str(part)) if section is not None else None
        if field is None:
            return None
        section = (
            Stream if (section, part) == (VigilConfig, "streams") else _section(field.annotation)
        )
    return section


def _section(annotation: Any) -> type[BaseModel] | None:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
