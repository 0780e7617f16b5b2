"""What was found: anomalies (episodes), near misses, and the outbox that carries each change on."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce

from detection.models import ScoringVersion
from streams.models import Series, Stream, TopicIncarnation


class AnomalyType(models.TextChoices):
    SPIKE = "spike", "Spike"
    DIP = "dip", "Dip"
    LEVEL_SHIFT = "level_shift", "Level shift"
    TREND_CHANGE = "trend_change", "Trend change"
    VARIANCE_CHANGE = "variance_change", "Variance change"
    CONTEXTUAL = "contextual", "Contextual"
    PATTERN = "pattern", "Pattern"
    FLATLINE = "flatline", "Flat line"
    MISSING = "missing", "Missing"
    MULTIVARIATE = "multivariate", "Multivariate"


class Severity(models.IntegerChoices):
    """Stored as a rank so that "high and above" is one comparison."""

    LOW = 1, "low"
    MEDIUM = 2, "medium"
    HIGH = 3, "high"
    CRITICAL = 4, "critical"


class Anomaly(models.Model):
    """One episode of one series: it opens at an onset, and closes after quiet events or silence.

    ``id`` is a UUIDv5 of (topic incarnation, partition, offset, series, kind), or of the
    idempotency key of a manual report, so that a replay meets the same row.
    """

    class Origin(models.TextChoices):
        DETECTOR = "detector"
        MANUAL = "manual"
        ALERTMANAGER = "alertmanager"

    class State(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    class Label(models.TextChoices):
        NONE = "", "Not labelled"
        REAL = "real", "Real"
        FALSE_ALARM = "false_alarm", "False alarm"
        EXPECTED = "expected", "Expected"

    id = models.UUIDField(primary_key=True)
    # Keys without an index of their own: each costs every insert, and few lists ask by them alone.
    stream = models.ForeignKey(Stream, null=True, on_delete=models.CASCADE, db_index=False)
    series = models.ForeignKey(
        Series, null=True, on_delete=models.CASCADE, related_name="anomalies", db_index=False
    )
    source = models.CharField(max_length=255)
    metric = models.CharField(max_length=255)
    origin = models.CharField(max_length=12, choices=Origin, default=Origin.DETECTOR)
    kind = models.CharField(max_length=20, default="episode")
    anomaly_type = models.CharField(
        max_length=40, help_text="One of AnomalyType; a manual report keeps the type it gave."
    )
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    severity = models.SmallIntegerField(choices=Severity)
    onset_at = models.DateTimeField(help_text="Event time of the first event over the threshold.")
    end_at = models.DateTimeField(help_text="Event time of the last event over the threshold.")
    count = models.IntegerField(default=1, help_text="Events over the threshold so far.")
    value = models.FloatField(null=True, help_text="At the onset.")
    score = models.FloatField(null=True, help_text="At the onset.")
    peak_value = models.FloatField(null=True)
    peak_score = models.FloatField(null=True)
    peak_at = models.DateTimeField(null=True)
    direction = models.SmallIntegerField(
        default=0, help_text="1 above, -1 below the expected value."
    )
    expected_low = models.FloatField(null=True)
    expected_mid = models.FloatField(null=True)
    expected_high = models.FloatField(null=True)
    threshold = models.FloatField(null=True)  # in effect at the onset: the policy's, or raised
    policy = models.CharField(max_length=140, blank=True, default="", help_text="Name and version.")
    detectors = models.JSONField(default=dict, help_text="{detector: score or null}, at the onset.")
    features = models.JSONField(
        default=dict, help_text="{feature: standardised value}, at the onset."
    )
    context = models.JSONField(
        default=list, help_text="[[epoch ms, value], …] of the events up to the onset."
    )
    explanation = models.TextField(blank=True, default="")
    evidence = models.JSONField(
        default=dict, help_text="Why: contributions, rarity, similar ones (anomalies.evidence)."
    )
    models_used = models.JSONField(default=dict, help_text="{algorithm: {version, sha256}}")
    incarnation = models.ForeignKey(
        TopicIncarnation, null=True, on_delete=models.CASCADE, db_index=False
    )
    partition = models.IntegerField(null=True)
    offset = models.BigIntegerField(null=True)
    last_offset = models.BigIntegerField(null=True)
    scoring_version = models.ForeignKey(
        ScoringVersion, null=True, on_delete=models.PROTECT, db_index=False
    )
    late = models.BooleanField(default=False)
    message = models.TextField(blank=True, default="", help_text="What a manual report said.")
    label = models.CharField(max_length=12, choices=Label, blank=True, default=Label.NONE)
    labelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, db_index=False
    )
    labelled_at = models.DateTimeField(null=True, blank=True)
    stored_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "anomalies"
        indexes = [
            models.Index(fields=["-onset_at", "-id"], name="anomalies_newest"),
            models.Index(fields=["source", "-onset_at"], name="anomalies_by_source"),
            models.Index(fields=["series", "-onset_at"], name="anomalies_by_series"),
            models.Index(fields=["severity", "-onset_at"], name="anomalies_by_severity"),
            models.Index(fields=["-stored_at"], name="anomalies_by_stored"),
            models.Index(
                fields=["incarnation", "partition"],
                condition=models.Q(kind="missing", state="open"),
                name="anomalies_silent_now",
            ),
            models.Index(
                fields=["-labelled_at"], condition=~models.Q(label=""), name="anomalies_labelled"
            ),
            # What lists are narrowed to or ordered by, each from its newest on.
            models.Index(fields=["metric", "-onset_at"], name="anomalies_by_metric"),
            models.Index(fields=["anomaly_type", "-onset_at"], name="anomalies_by_type"),
            models.Index(
                fields=["label", "-onset_at"], condition=~models.Q(label=""),
                name="anomalies_by_label",
            ),
            models.Index(
                fields=["-onset_at"], condition=models.Q(state="open"), name="anomalies_open"
            ),
            models.Index(
                fields=["-onset_at"], condition=models.Q(origin="manual"), name="anomalies_manual"
            ),
            models.Index(
                Coalesce("peak_score", "score", models.Value(0.0)).desc(),
                models.F("onset_at").desc(), models.F("id").desc(), name="anomalies_by_worst",
                # Neighbours are then found without the rows, however many lie between.
                include=["peak_score", "score", "severity"],
            ),
            # All that lanes read, so that they need not touch rows of a kilobyte each.
            models.Index(
                fields=["onset_at"],
                include=("source", "metric", "stream", "severity", "score", "peak_score", "label"),
                name="anomalies_lanes",
            ),
            models.Index(fields=["incarnation", "partition", "offset"], name="anomalies_by_place"),
            models.Index(
                fields=["series", "label"], include=("source", "metric"),
                condition=~models.Q(label="") & models.Q(origin="detector"),
                name="anomalies_judged",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.metric} on {self.source} at {self.onset_at:%Y-%m-%d %H:%M:%S}"


class Candidate(models.Model):
    """A near miss: an event that would have been an onset at one of the what-if thresholds.

    Bit i of ``levels`` is set where the event is an onset at ``detection.thresholds.LEVELS[i]``;
    ``WOULD_OPEN`` where it is one at its policy's own threshold, and ``HELD_BACK`` where the
    policy's budget of onsets then held it back.
    """

    series = models.ForeignKey(Series, on_delete=models.CASCADE, db_index=False)
    incarnation = models.ForeignKey(TopicIncarnation, on_delete=models.CASCADE, db_index=False)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    event_at = models.DateTimeField()
    value = models.FloatField()
    score = models.FloatField()
    direction = models.SmallIntegerField()
    deviation = models.FloatField(null=True, help_text="Value minus the expected one.")
    expected_mid = models.FloatField(null=True)
    levels = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incarnation", "partition", "offset", "series"],
                name="anomalies_candidate_identity",
            )
        ]
        indexes = [models.Index(fields=["series", "-event_at"], name="anomalies_candidate_series")]


class Outbox(models.Model):
    """One change of one anomaly, to be published and evaluated in order.

    ``sequence`` counts the changes of one anomaly: 0 its onset, then rises of severity, then its
    end. (anomaly, sequence) is the message's stable id.
    """

    class Kind(models.TextChoices):
        ONSET = "onset"
        UPDATE = "update"
        CLOSED = "closed"
        MANUAL = "manual"

    anomaly = models.ForeignKey(
        Anomaly, on_delete=models.CASCADE, db_constraint=False, db_index=False
    )
    sequence = models.IntegerField()
    kind = models.CharField(max_length=10, choices=Kind)
    payload = models.JSONField(help_text="The result as on the anomaly-results topic.")
    incarnation = models.ForeignKey(
        TopicIncarnation, null=True, on_delete=models.CASCADE, db_index=False
    )
    partition = models.IntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True)
    evaluated_at = models.DateTimeField(null=True)  # by the alert rules

    class Meta:
        verbose_name_plural = "outbox"
        constraints = [
            models.UniqueConstraint(
                fields=["anomaly", "sequence"], name="anomalies_outbox_identity"
            )
        ]
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(published_at__isnull=True),
                name="anomalies_outbox_unpublished",
            ),
            models.Index(
                fields=["id"],
                condition=models.Q(evaluated_at__isnull=True),
                name="anomalies_outbox_unevaluated",
            ),
        ]


class Note(models.Model):
    """What somebody wrote beside an anomaly, as plain text."""

    LONGEST = 4_000

    anomaly = models.ForeignKey(Anomaly, on_delete=models.CASCADE, related_name="notes")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    text = models.TextField(max_length=LONGEST)
    written_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["anomaly", "id"], name="anomalies_note_order")]

    def __str__(self) -> str:
        return self.text[:60]


class SavedView(models.Model):
    """A list of anomalies by name: the filters, range and order of its address."""

    LONGEST = 2_000

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views"
    )
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=LONGEST, blank=True)
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="anomalies_savedview_identity")
        ]

    def __str__(self) -> str:
        return self.name


class DefaultView(models.Model):
    """The view that the list opens with for a user."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    view = models.ForeignKey(SavedView, on_delete=models.CASCADE)


class BulkLabel(models.Model):
    """One label given to many at once, and what they had before: it can be taken back whole."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL)
    label = models.CharField(max_length=12, choices=Anomaly.Label, blank=True)
    at = models.DateTimeField()
    undone_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["at"], name="anomalies_bulklabel_at")]

    def __str__(self) -> str:
        return f"{self.get_label_display()} at {self.at:%Y-%m-%d %H:%M:%S}"


class BulkLabelled(models.Model):
    """An anomaly of a bulk label, with its label before."""

    bulk = models.ForeignKey(BulkLabel, on_delete=models.CASCADE, related_name="labelled")
    anomaly = models.ForeignKey(Anomaly, on_delete=models.CASCADE, related_name="+")
    label = models.CharField(max_length=12, blank=True)
    labelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    labelled_at = models.DateTimeField(null=True)
