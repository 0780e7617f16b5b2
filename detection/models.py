"""What scoring depends on, versioned: policies, stored models, and which counted where."""

from __future__ import annotations

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from streams.models import Stream, TopicIncarnation

UNIT = [MinValueValidator(0.0), MaxValueValidator(1.0)]


class ThresholdPolicy(models.Model):
    """When a score becomes an anomaly, for all series, one stream, or a pattern of series.

    The narrowest enabled policy wins: pattern over stream over global, then the higher priority,
    then the newer one. Saving makes a new version; consumers take it up within seconds.
    """

    class Direction(models.TextChoices):
        BOTH = "both"
        UP = "up"
        DOWN = "down"

    name = models.CharField(max_length=100, unique=True)
    stream = models.ForeignKey(
        Stream, null=True, blank=True, on_delete=models.CASCADE, help_text="Empty: every stream."
    )
    source_pattern = models.CharField(
        max_length=255, blank=True, default="", help_text="Glob such as web-*; empty: every source."
    )
    metric_pattern = models.CharField(
        max_length=255, blank=True, default="", help_text="Glob such as cpu_*; empty: every metric."
    )
    threshold = models.FloatField(
        default=0.8,
        validators=[MinValueValidator(0.5), MaxValueValidator(0.9999)],
        help_text="0.8 is at the detectors' alarm level, 0.96 twice as odd.",
    )
    direction = models.CharField(max_length=4, choices=Direction, default=Direction.BOTH)
    min_absolute_deviation = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0)],
        help_text="Ignore values nearer to the expected one than this, in the metric's unit.",
    )
    min_relative_deviation = models.FloatField(
        default=0.0,
        validators=[MinValueValidator(0.0)],
        help_text="The same as a share of the expected value: 0.1 is 10 %.",
    )
    medium_from = models.FloatField(default=0.85, validators=UNIT)
    high_from = models.FloatField(default=0.90, validators=UNIT)
    critical_from = models.FloatField(default=0.95, validators=UNIT)
    priority = models.IntegerField(default=0)
    enabled = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=0, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "threshold policies"
        constraints = [
            models.CheckConstraint(
                name="detection_policy_bands",
                condition=models.Q(medium_from__lte=models.F("high_from"))
                & models.Q(high_from__lte=models.F("critical_from")),
                violation_error_message="Severity bands must rise: medium ≤ high ≤ critical.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    def save(self, *args: object, **kwargs: object) -> None:
        """Count the version up: an anomaly names the version that flagged it."""
        self.version += 1
        super().save(*args, **kwargs)  # type: ignore[arg-type]


class TrainingRun(models.Model):
    """One attempt to train a model, whether it made one or not."""

    class Status(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        SKIPPED = "skipped"

    stream = models.ForeignKey(Stream, null=True, on_delete=models.CASCADE)
    metric = models.CharField(max_length=255, blank=True, default="")
    algorithm = models.CharField(max_length=40)
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    reason = models.TextField(blank=True, default="")
    rows = models.BigIntegerField(default=0)
    params = models.JSONField(default=dict)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)


class ModelVersion(models.Model):
    """One trained model as plain arrays, with the manifest that says where it came from."""

    class State(models.TextChoices):
        CANDIDATE = "candidate"
        CHALLENGER = "challenger"
        CHAMPION = "champion"
        RETIRED = "retired"

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="models")
    metric = models.CharField(
        max_length=255,
        blank=True,
        default="",
        help_text="Empty: serves every metric of the stream.",
    )
    algorithm = models.CharField(max_length=40)
    version = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.CANDIDATE)
    sha256 = models.CharField(max_length=64)
    artefact = models.BinaryField()
    manifest = models.JSONField(default=dict)
    run = models.ForeignKey(TrainingRun, null=True, on_delete=models.SET_NULL)
    parent = models.ForeignKey("self", null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)
    promoted_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["stream", "metric", "algorithm", "version"], name="detection_model_identity"
            ),
            models.UniqueConstraint(
                fields=["stream", "metric", "algorithm"],
                condition=models.Q(state="champion"),
                name="detection_one_champion",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.algorithm} v{self.version}"


class ScoringVersion(models.Model):
    """Everything a score depends on beside the events, frozen: detectors, policies, models, zone.

    ``payload`` is what ``detection.versions`` wrote; ``sha256`` is its hash, so the same settings
    are the same row.
    """

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="scoring_versions")
    sha256 = models.CharField(max_length=64)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["stream", "sha256"], name="detection_scoring_identity")
        ]


class VersionLog(models.Model):
    """From which offset of a partition which scoring version counts: written before it is used."""

    incarnation = models.ForeignKey(TopicIncarnation, on_delete=models.CASCADE)
    partition = models.IntegerField()
    from_offset = models.BigIntegerField()
    scoring_version = models.ForeignKey(ScoringVersion, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incarnation", "partition", "from_offset"], name="detection_log_identity"
            )
        ]
