"""What scoring depends on, versioned: policies, stored models, and which counted where."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from streams.models import Series, Stream, TopicIncarnation

UNIT = [MinValueValidator(0.0), MaxValueValidator(1.0)]


class ThresholdPolicy(models.Model):
    """When a score becomes an anomaly, for all series, one stream, or a pattern of series.

    The narrowest enabled policy wins: pattern over stream over global, then the higher priority,
    then the newer one. Saving makes a new version; consumers take it up within seconds.
    """

    FOLLOWS = ("version", "updated_at")
    """Fields that nobody sets."""

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
    max_onsets_per_day = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0)],
        help_text="Raises the threshold of a series that would alarm more often than this a day."
        " Empty: as the configuration says; 0: no limit.",
    )
    silence_after_s = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0.0)],
        help_text="Seconds without an event after which a series counts as silent. Empty: as it"
        " has learnt by itself; 0: never.",
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
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        SKIPPED = "skipped"
        CANCELLED = "cancelled"

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule"
        COMMAND = "command"
        BUTTON = "button"
        API = "api"
        DRIFT = "drift"
        TUNING = "tuning"
        RETRY = "retry"

    stream = models.ForeignKey(Stream, null=True, on_delete=models.CASCADE)
    metric = models.CharField(max_length=255, blank=True, default="")
    algorithm = models.CharField(max_length=40)
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    trigger = models.CharField(max_length=10, choices=Trigger, default=Trigger.COMMAND)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL
    )
    stage = models.CharField(max_length=40, blank=True, default="")
    progress = models.FloatField(default=0.0, help_text="0 to 1, over all stages.")
    reason = models.TextField(blank=True, default="")
    rows = models.BigIntegerField(default=0)
    order = models.JSONField(default=dict, help_text="All that is needed to run it again.")
    params = models.JSONField(default=dict)
    attempt = models.PositiveSmallIntegerField(default=1)
    retry_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL)
    cancel_requested = models.BooleanField(default=False)
    heartbeat_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["-started_at"], name="detection_runs_newest")]

    def __str__(self) -> str:
        return f"{self.algorithm} #{self.pk} ({self.status})"


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
    challenged_at = models.DateTimeField(null=True)
    promoted_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)
    watch_until = models.DateTimeField(
        null=True, help_text="Until then a champion that alarms too often is rolled back."
    )
    gate = models.JSONField(
        default=dict, help_text="The last test for promotion: {passed, reasons, figures, at}."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["stream", "metric", "algorithm", "version"], name="detection_model_identity"
            ),
            models.UniqueConstraint(
                fields=["stream", "metric", "algorithm"],
                condition=models.Q(state="challenger"),
                name="detection_one_challenger",
            ),
            models.UniqueConstraint(
                fields=["stream", "metric", "algorithm"],
                condition=models.Q(state="champion"),
                name="detection_one_champion",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.algorithm} v{self.version}"


class ModelTransition(models.Model):
    """A change of a model's state: who or what made it, when and why. Rows are never changed."""

    model = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="transitions")
    from_state = models.CharField(max_length=10, blank=True, default="")
    to_state = models.CharField(max_length=10, choices=ModelVersion.State)
    actor = models.CharField(max_length=150, help_text="A user's name, or what acted by itself.")
    reason = models.TextField(blank=True, default="")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["model", "-at"], name="detection_transitions")]


class Evaluation(models.Model):
    """Figures of one test of a model, or of a stream's whole ensemble where ``model`` is empty."""

    model = models.ForeignKey(
        ModelVersion, null=True, on_delete=models.CASCADE, related_name="evaluations"
    )
    stream = models.ForeignKey(Stream, null=True, on_delete=models.CASCADE)
    kind = models.CharField(max_length=20, help_text="injected, labels, nab, skab, normal …")
    settings = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["model", "-created_at"], name="detection_evaluations")]


class LearntWeights(models.Model):
    """Weights of a stream's ensemble that `evaluate weights` learnt; at most one set is in use.

    ``gain`` is what the combined oddness is multiplied by, so that 1 is its alarm level. Rows in
    use are part of scoring versions and never deleted.
    """

    class State(models.TextChoices):
        CANDIDATE = "candidate"
        IN_USE = "in use"
        RETIRED = "retired"

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="learnt_weights")
    state = models.CharField(max_length=10, choices=State, default=State.CANDIDATE)
    method = models.CharField(max_length=10, help_text="max or weighted")
    weights = models.JSONField(help_text="{detector: weight}")
    gain = models.FloatField(default=1.0)
    settings = models.JSONField(default=dict, help_text="What they were learnt on.")
    metrics = models.JSONField(default=dict, help_text="{learnt, held_out, configured}")
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_by = models.CharField(max_length=150, blank=True, default="")
    used_at = models.DateTimeField(null=True)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "learnt weights"
        constraints = [
            models.UniqueConstraint(
                fields=["stream"], condition=models.Q(state="in use"),
                name="detection_one_set_of_weights",
            )
        ]  # fmt: skip


class Study(models.Model):
    """One search for the best algorithm, features and hyperparameters, with all its trials."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE)
    metric = models.CharField(max_length=255, blank=True, default="")
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    reason = models.TextField(blank=True, default="")
    seed = models.BigIntegerField(default=0)
    max_trials = models.PositiveIntegerField(null=True)
    max_seconds = models.FloatField(null=True)
    objective = models.CharField(max_length=200, blank=True, default="")
    search = models.JSONField(default=dict, help_text="Algorithms and ranges searched.")
    trials = models.JSONField(default=list)
    best = models.JSONField(default=dict, help_text="{algorithm, params, value, metrics}")
    importance = models.JSONField(default=dict, help_text="{parameter: share}")
    run = models.ForeignKey(TrainingRun, null=True, on_delete=models.SET_NULL)
    model = models.ForeignKey(ModelVersion, null=True, on_delete=models.SET_NULL)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL
    )
    attempt = models.PositiveSmallIntegerField(default=1)
    retry_of = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL)
    cancel_requested = models.BooleanField(default=False)
    heartbeat_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "studies"


class ShadowHour(models.Model):
    """One hour of a challenger beside the champion: counts that only ever grow.

    They grow in the transaction that moves the offsets, so that each event counts once.
    ``*_onsets`` are episodes that began; ``champion`` and ``challenger`` mean the whole ensemble
    with the one or the other model in it.
    """

    challenger = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, related_name="shadow_hours"
    )
    hour = models.DateTimeField(help_text="Of the events.")
    partition = models.IntegerField(
        default=0, help_text="Its owner alone writes the row: consumers don't wait for each other."
    )
    events = models.BigIntegerField(default=0)
    both = models.BigIntegerField(default=0, help_text="Events over the threshold of both.")
    only_champion = models.BigIntegerField(default=0)
    only_challenger = models.BigIntegerField(default=0)
    champion_onsets = models.BigIntegerField(default=0)
    challenger_onsets = models.BigIntegerField(default=0)
    champion_us = models.FloatField(default=0.0, help_text="Time spent scoring, in µs.")
    challenger_us = models.FloatField(default=0.0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["challenger", "hour", "partition"], name="detection_shadow_identity"
            )
        ]


class Disagreement(models.Model):
    """An event that only the champion's or only the challenger's ensemble flagged."""

    challenger = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, related_name="disagreements"
    )
    series = models.ForeignKey(Series, on_delete=models.CASCADE)
    incarnation = models.ForeignKey(TopicIncarnation, on_delete=models.CASCADE)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    event_at = models.DateTimeField()
    value = models.FloatField()
    champion_score = models.FloatField(null=True)
    challenger_score = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["challenger", "incarnation", "partition", "offset", "series"],
                name="detection_disagreement_identity",
            )
        ]
        indexes = [models.Index(fields=["challenger", "-event_at"], name="detection_disagreements")]


class FeatureHour(models.Model):
    """How often a feature of a stream's metric fell into each bin within an hour of event time.

    ``feature`` is one of ``detection.features`` or ``score:<id>`` of a champion; bins are those of
    ``detection.bins``. Counts grow in the transaction that moves the offsets.
    """

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, db_index=False)
    metric = models.CharField(max_length=255)
    hour = models.DateTimeField()
    partition = models.IntegerField(default=0)
    feature = models.CharField(max_length=40)
    counts = ArrayField(models.BigIntegerField())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["stream", "metric", "hour", "feature", "partition"],
                name="detection_feature_identity",
            )
        ]


class DriftReport(models.Model):
    """How far the live distributions of a metric have moved from those a model was trained on."""

    model = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="drift")
    metric = models.CharField(max_length=255)
    from_hour = models.DateTimeField()
    to_hour = models.DateTimeField()
    events = models.BigIntegerField()
    psi = models.JSONField(help_text="{feature: population stability index}")
    ks = models.JSONField(help_text="{feature: Kolmogorov-Smirnov distance}")
    worst_feature = models.CharField(max_length=40, blank=True, default="")
    worst_psi = models.FloatField(default=0.0)
    retraining = models.ForeignKey(TrainingRun, null=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["model", "metric", "-created_at"], name="detection_drift")]


class QuarantineRelease(models.Model):
    """An episode labelled *expected*: consumers let its series' detector learn what it held back.

    It counts from a scoring version on, like every other change of what scores depend on.
    """

    series = models.ForeignKey(Series, on_delete=models.CASCADE)
    onset_at = models.DateTimeField()
    end_at = models.DateTimeField()
    partition = models.IntegerField(null=True, help_text="Where the episode was; empty: anywhere.")
    first_event = models.BigIntegerField(
        null=True, help_text="Of the episode, counted in its series; empty: not known."
    )
    last_event = models.BigIntegerField(null=True)
    values = ArrayField(models.FloatField(), default=list, help_text="At the onset and the peak.")
    flat = models.BooleanField(default=False, help_text="A flat line of this length is usual.")
    pause_s = models.FloatField(default=0.0, help_text="A pause of so many seconds is usual.")
    anomaly_id = models.UUIDField(null=True)
    requested_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(auto_now_add=True)


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
