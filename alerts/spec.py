"""What a rule and a silence say, as they are stored, exported and applied.

Every field has a default, so a rule's YAML holds only what it changes; an unknown field or a value
out of range is refused with its path, what was found and what is allowed (pydantic's errors).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Pattern = Annotated[str, Field(min_length=1, max_length=255)]
"""Literal text with ``*`` and ``?``; compared with case."""
Name = Annotated[str, Field(min_length=1, max_length=100)]
SeverityName = Literal["low", "medium", "high", "critical"]
Seconds = Annotated[float, Field(ge=0, le=30 * 86_400)]


class Part(BaseModel):
    """A section: nothing unknown in it, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Matcher(Part):
    """Which anomalies (of rules) or notifications (of silences) are meant; all fields must hold.

    A list holds where one of its entries does; an empty list always holds.
    """

    streams: tuple[Pattern, ...] = ()
    sources: tuple[Pattern, ...] = ()
    metrics: tuple[Pattern, ...] = ()
    types: tuple[Pattern, ...] = ()
    tags: dict[str, Pattern] = Field(default_factory=dict)
    min_severity: SeverityName = "low"
    max_severity: SeverityName = "critical"
    rules: tuple[Name, ...] = Field(default=(), description="Names of rules; for silences.")

    @model_validator(mode="after")
    def _ordered(self) -> Matcher:
        ranks = ("low", "medium", "high", "critical")
        if ranks.index(self.min_severity) > ranks.index(self.max_severity):
            raise ValueError("min_severity lies above max_severity")
        return self


class When(Part):
    """What must come together before a rule speaks.

    ``kind``: ``anomaly`` (episodes), ``no_events`` (a matched series is silent for ``for_s`` of
    wall-clock time), ``drift`` (a stream's metric drifts at ``at_least`` PSI or more), ``pipeline``
    (``metric`` of the pipeline compared with ``value`` for ``for_s``).
    """

    kind: Literal["anomaly", "no_events", "drift", "pipeline"] = "anomaly"
    min_score: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="Besides the policy's threshold."
    )
    budget_per_day: Annotated[float, Field(gt=0, le=1_000)] | None = Field(
        default=None,
        description="In place of min_score: a score is solved from what is stored, so that"
        " this many notifications a day are expected.",
    )
    direction: Literal["up", "down", "both"] = "both"
    min_duration_s: Seconds = 0
    count: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=1, description="At least so many anomalies within within_s, on one …"
    )
    within_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 300
    on: Literal["series", "source", "stream", "rule"] = "source"
    share_of_series: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="At least this share of a source's series within within_s."
    )
    for_s: Seconds = 300
    at_least: Annotated[float, Field(gt=0, le=100)] = 0.25
    metric: Literal["lag", "events_per_s", "latency_p95_ms", "dead_letters", "consumers"] = "lag"
    compare: Literal["above", "below"] = "above"
    value: float = 0

    @model_validator(mode="after")
    def _one_limit(self) -> When:
        if self.min_score is not None and self.budget_per_day is not None:
            raise ValueError("either min_score or budget_per_day, not both")
        return self


class Group(Part):
    """Which anomalies share an incident, by event time.

    ``by`` is what they have in common. ``incident`` joins sources of a stream that move together: a
    source comes in where it begins within ``join_s`` of the incident's latest onset or rise, and
    what a source that is in finds later is the same trouble until that is resolved.
    """

    by: Literal["incident", "source", "metric", "series", "stream", "rule"] = "incident"
    join_s: Annotated[float, Field(gt=0, le=86_400)] = 300
    wait_s: Seconds = Field(
        default=0, description="Of event time that the first word waits for what belongs to it."
    )
    resolve_after_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = Field(
        default=900, description="Resolved by itself once nothing of it was open for so long."
    )
    reopen_within_s: Seconds = Field(
        default=3_600, description="A new anomaly so soon after opens it again, not a new one."
    )


class Step(Part):
    """One receiver of a rule."""

    receiver: Name
    min_severity: SeverityName = "low"
    after_s: Seconds = Field(
        default=0, description="Of wall-clock time, and only if nobody has acknowledged by then."
    )
    hours: Name | None = Field(default=None, description="Only within these hours.")
    outside: bool = Field(default=False, description="Only outside of those hours instead.")


class RuleSpec(Part):
    """A rule as its versions store it."""

    match: Matcher = Matcher()
    when: When = When()
    group: Group = Group()
    cooldown_s: Seconds = Field(
        default=1_800, description="Of event time between two notifications of one incident."
    )
    at_once_if_worse: bool = Field(
        default=True, description="A rise in severity does not wait for that."
    )
    remind_s: Seconds = Field(
        default=0, description="Again and again until acknowledged; 0: never. Wall-clock."
    )
    tell_resolved: bool = True
    send: tuple[Step, ...] = ()
    silences: tuple[str, ...] = Field(default=(), description="Names of silences that it obeys"
                                      " besides those that match it.")  # fmt: skip

    @classmethod
    def read(cls, stored: Any) -> RuleSpec:
        """From JSON or YAML data.

        Raises:
            pydantic.ValidationError: with the path of each field that is wrong.
        """
        return cls.model_validate(stored)

    def stored(self) -> dict[str, Any]:
        """As JSON data that holds only what differs from the defaults."""
        found: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        return found
