"""Rules, incidents, notifications and what surrounds them.

One leased evaluator (``alerts.evaluator``) turns changes of anomalies into incidents and
notifications; workers claim and send those (``alerts.delivery``). Times named ``*_at`` of incidents
are event time where they say so, all others are wall-clock.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models

from anomalies.models import Anomaly, Severity
from streams.models import AuditEntry

USER = settings.AUTH_USER_MODEL


class Team(models.Model):
    """Who is told: receivers and rules belong to teams, and a team may have a budget."""

    name = models.CharField(max_length=100, unique=True)
    members: models.ManyToManyField[Any, Any] = models.ManyToManyField(
        USER, blank=True, related_name="teams"
    )
    time_zone = models.CharField(max_length=64, default="UTC")
    budget_per_day = models.FloatField(
        null=True, blank=True, help_text="Most notifications a day; empty: no limit."
    )

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """``key=value`` of all series that the patterns match, for rules to choose by."""

    key = models.CharField(max_length=60)
    value = models.CharField(max_length=120)
    stream = models.CharField(max_length=100, default="*", help_text="Pattern (* and ?).")
    source = models.CharField(max_length=255, default="*", help_text="Pattern (* and ?).")
    metric = models.CharField(max_length=255, default="*", help_text="Pattern (* and ?).")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["key", "value", "stream", "source", "metric"], name="alerts_tag_identity"
            )
        ]

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


class Hours(models.Model):
    """A weekly timetable with holidays: when a receiver or a step of a rule counts."""

    name = models.CharField(max_length=100, unique=True)
    time_zone = models.CharField(max_length=64, default="UTC")
    weekly = models.JSONField(
        default=list, help_text='[{"days": ["mon", …], "from": "08:00", "to": "18:00"}, …]'
    )
    holidays = models.CharField(
        max_length=20, blank=True, default="", help_text="A country or DE-BY: its public holidays."
    )
    dates = models.JSONField(default=list, help_text='["2026-12-24", …]: further days off.')

    class Meta:
        verbose_name_plural = "hours"

    def __str__(self) -> str:
        return self.name


class Receiver(models.Model):
    """Where notifications go. ``secrets`` is encrypted; pages and logs never show it."""

    class Kind(models.TextChoices):
        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Webhook (signed)"
        ALERTMANAGER = "alertmanager", "Alertmanager"
        PAGERDUTY = "pagerduty", "PagerDuty"
        SLACK = "slack", "Slack"
        TEAMS = "teams", "Microsoft Teams"
        TELEGRAM = "telegram", "Telegram"
        APPRISE = "apprise", "Others (Apprise)"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=20, choices=Kind)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.SET_NULL)
    enabled = models.BooleanField(default=True)
    settings = models.JSONField(default=dict, help_text="Address and options of its kind.")
    secrets = models.TextField(blank=True, default="", help_text="Encrypted JSON of its secrets.")
    subject_template = models.TextField(blank=True, default="", help_text="Empty: the usual one.")
    body_template = models.TextField(blank=True, default="", help_text="Empty: the usual one.")
    per_minute = models.IntegerField(default=30, help_text="Most sends a minute.")
    quiet_hours = models.ForeignKey(
        Hours, null=True, blank=True, on_delete=models.PROTECT, related_name="+",
        help_text="What is not critical waits until these end.",
    )  # fmt: skip
    digest_minutes = models.IntegerField(
        default=0, help_text="Collect so long and send once; 0: each by itself."
    )
    # circuit breaker and rate limit, moved by the workers that send
    failures_in_a_row = models.IntegerField(default=0)
    closed_until = models.DateTimeField(null=True, blank=True)
    tokens = models.FloatField(default=0)
    tokens_at = models.DateTimeField(null=True, blank=True)
    last_ok_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=400, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.name


class Rule(models.Model):
    """Which anomalies become incidents, and who hears of them: ``alerts.spec.RuleSpec``.

    ``live`` is the version in effect; ``draft`` what somebody edits and nobody is told by yet.
    """

    name = models.CharField(max_length=100, unique=True)
    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.SET_NULL)
    enabled = models.BooleanField(default=False)
    live = models.ForeignKey(
        "RuleVersion", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    draft = models.JSONField(null=True, blank=True)
    draft_by = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    draft_at = models.DateTimeField(null=True, blank=True)
    draft_reverts = models.ForeignKey(
        AuditEntry, null=True, blank=True, on_delete=models.DO_NOTHING, related_name="+",
        help_text="The change that the draft takes back.",
    )  # fmt: skip
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="It tells nobody any more; its history stays."
    )
    solved_score = models.FloatField(
        null=True,
        blank=True,
        help_text="The least score that keeps to its budget, as of solved_at.",
    )
    solved_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class RuleVersion(models.Model):
    """What a rule said from ``created_at`` on; never changed."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    spec = models.JSONField()
    created_by = models.ForeignKey(USER, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["rule", "number"], name="alerts_ruleversion_identity")
        ]

    def __str__(self) -> str:
        return f"{self.rule} v{self.number}"


class RuleState(models.Model):
    """Where the evaluator stands with a rule: the machine's state between two rounds."""

    rule = models.OneToOneField(Rule, on_delete=models.CASCADE, related_name="state")
    version = models.ForeignKey(RuleVersion, on_delete=models.CASCADE, related_name="+")
    state = models.JSONField(default=dict)
    evaluated_at = models.DateTimeField(null=True)


class Silence(models.Model):
    """Keeps notifications back, once or again and again; incidents are made all the same."""

    name = models.CharField(max_length=140)
    matcher = models.JSONField(default=dict, help_text="``alerts.spec.Matcher``.")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(help_text="Of the first window, where it recurs.")
    recurrence = models.CharField(
        max_length=400, blank=True, default="", help_text="RRULE of RFC 5545; empty: once."
    )
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Windows keep its hours.")
    maintenance = models.BooleanField(default=False)
    enabled = models.BooleanField(default=True)
    comment = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(USER, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["-ends_at"], name="alerts_silence_ends")]

    def __str__(self) -> str:
        return self.name


class Incident(models.Model):
    """Anomalies of one rule that belong together. ``key`` makes a repeated evaluation meet it."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        RESOLVED = "resolved", "Resolved"

    class Label(models.TextChoices):
        NONE = "", "Not labelled"
        REAL = "real", "Real"
        FALSE_ALARM = "false_alarm", "False alarm"
        EXPECTED = "expected", "Expected"

    class Origin(models.TextChoices):
        VIGIL = "vigil", "Vigil"
        ALERTMANAGER = "alertmanager", "Alertmanager"

    key = models.UUIDField(unique=True)
    rule = models.ForeignKey(Rule, null=True, on_delete=models.SET_NULL, related_name="incidents")
    rule_version = models.ForeignKey(
        RuleVersion, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    group = models.CharField(max_length=600, help_text="What its anomalies have in common.")
    title = models.CharField(max_length=300)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    severity = models.SmallIntegerField(choices=Severity)
    first_at = models.DateTimeField(help_text="Event time of its first anomaly.")
    last_at = models.DateTimeField(help_text="Event time of its latest change.")
    anomaly_count = models.IntegerField(default=0)
    sources = models.JSONField(default=list, help_text="The first few that take part.")
    opened_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reopened = models.IntegerField(default=0)
    assignee = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="incidents"
    )
    snoozed_until = models.DateTimeField(null=True, blank=True)
    merged_into = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="merged"
    )
    label = models.CharField(max_length=12, choices=Label, blank=True, default=Label.NONE)
    origin = models.CharField(
        max_length=12, choices=Origin, default=Origin.VIGIL, help_text="Who found it."
    )
    last_notified_at = models.DateTimeField(null=True, blank=True)
    sequence = models.IntegerField(default=0, help_text="Counts its changes of state.")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes = [
            models.Index(fields=["-opened_at", "-id"], name="alerts_incident_newest"),
            models.Index(
                fields=["rule", "group"],
                condition=~models.Q(state="resolved"),
                name="alerts_incident_open",
            ),
            models.Index(fields=["state", "-opened_at"], name="alerts_incident_state"),
        ]

    def __str__(self) -> str:
        return f"INC-{self.pk}"


class IncidentAnomaly(models.Model):
    """An anomaly of an incident; ``held`` says why it was not told by itself, if it was not."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="members")
    anomaly = models.ForeignKey(Anomaly, on_delete=models.CASCADE, related_name="memberships")
    joined_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incident", "anomaly"], name="alerts_incidentanomaly_identity"
            )
        ]


class TimelineEntry(models.Model):
    """One thing that happened to an incident. ``ident`` makes a repeated one meet its row."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="timeline")
    ident = models.CharField(max_length=120)
    at = models.DateTimeField()
    kind = models.CharField(
        max_length=20, help_text="opened, joined, worse, notified, held, acknowledged, …"
    )
    actor = models.ForeignKey(USER, null=True, on_delete=models.SET_NULL, related_name="+")
    text = models.TextField()
    data = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "timeline entries"
        constraints = [
            models.UniqueConstraint(fields=["incident", "ident"], name="alerts_timeline_identity")
        ]
        indexes = [models.Index(fields=["incident", "at", "id"], name="alerts_timeline_order")]


class Notification(models.Model):
    """One message to one receiver. Its id is its idempotency key: a repeat is recognisable.

    The id is a UUIDv5 of (incident, receiver, reason, number), so that a repeated evaluation
    makes no second one.
    """

    class Reason(models.TextChoices):
        OPENED = "opened"
        WORSE = "worse"
        AGAIN = "again"
        REMINDER = "reminder"
        ESCALATED = "escalated"
        ACKNOWLEDGED = "acknowledged"
        RESOLVED = "resolved"
        STILL_FIRING = "still_firing"
        DIGEST = "digest"
        BUDGET = "budget"
        TEST = "test"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"  # due_at lies ahead, or a worker has not come to it yet
        SENDING = "sending", "Being sent"
        SENT = "sent", "Sent"
        DEAD = "dead", "Given up"
        CANCELLED = "cancelled", "Not needed any more"
        DIGESTED = "digested", "Sent with a digest"

    id = models.UUIDField(primary_key=True)
    incident = models.ForeignKey(
        Incident, null=True, on_delete=models.CASCADE, related_name="notifications"
    )
    rule_version = models.ForeignKey(
        RuleVersion, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    receiver = models.ForeignKey(Receiver, on_delete=models.CASCADE, related_name="notifications")
    reason = models.CharField(max_length=14, choices=Reason)
    severity = models.SmallIntegerField(choices=Severity)
    event_at = models.DateTimeField(help_text="Event time that it speaks of.")
    payload = models.JSONField(help_text="All that its text needs, as of when it was decided.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    due_at = models.DateTimeField()
    only_if_unacknowledged = models.BooleanField(default=False)
    attempts = models.IntegerField(default=0)
    forgiven = models.IntegerField(
        default=0, help_text="Attempts before somebody sent it again: they count no more."
    )
    claimed_by = models.CharField(max_length=100, blank=True, default="")
    claimed_until = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=400, blank=True, default="")
    digest = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="parts")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["due_at"],
                condition=models.Q(state__in=["waiting", "sending"]),
                name="alerts_notification_due",
            ),
            models.Index(
                fields=["incident", "receiver", "created_at"],
                condition=models.Q(state__in=["waiting", "sending"]),
                name="alerts_notification_order",
            ),
            models.Index(fields=["-created_at"], name="alerts_notification_newest"),
            models.Index(fields=["receiver", "-created_at"], name="alerts_notification_by"),
        ]

    def __str__(self) -> str:
        return f"{self.reason} to {self.receiver}"


class Attempt(models.Model):
    """One try to send a notification, kept for good."""

    class Outcome(models.TextChoices):
        OK = "ok"
        TRANSIENT = "transient"  # tried again
        SLOW_DOWN = "slow_down"  # tried again when told
        PERMANENT = "permanent"  # not tried again
        UNKNOWN = "unknown"  # the sender died: it may have arrived

    notification = models.ForeignKey(Notification, on_delete=models.CASCADE, related_name="tries")
    number = models.IntegerField()
    started_at = models.DateTimeField()
    latency_ms = models.FloatField(null=True)
    outcome = models.CharField(max_length=10, choices=Outcome)
    status = models.CharField(max_length=40, blank=True, default="", help_text="HTTP or SMTP code.")
    excerpt = models.CharField(max_length=500, blank=True, default="")
    worker = models.CharField(max_length=100, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["notification", "number"], name="alerts_attempt_identity"
            )
        ]


class Lease(models.Model):
    """Who may do a thing that only one may do at a time; ``epoch`` fences off the one before."""

    name = models.CharField(max_length=60, primary_key=True)
    owner = models.CharField(max_length=100, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    until = models.DateTimeField(null=True)
    data = models.JSONField(default=dict)


class IncidentMessage(models.Model):
    """A change of state on its way to the ``alerts`` topic, with its stable id."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE)
    sequence = models.IntegerField()
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["incident", "sequence"], name="alerts_incidentmessage_identity"
            )
        ]
        indexes = [
            models.Index(
                fields=["id"],
                condition=models.Q(published_at__isnull=True),
                name="alerts_incidentmessage_waiting",
            )
        ]


class InboundSource(models.Model):
    """An Alertmanager that may send us alerts; its token is stored as a hash only."""

    name = models.SlugField(max_length=60, unique=True, help_text="Letters, digits, - and _.")
    token_hash = models.CharField(max_length=64, unique=True)
    token_at = models.DateTimeField()
    enabled = models.BooleanField(default=True)
    last_at = models.DateTimeField(null=True, help_text="When it last sent something.")
    alerts = models.BigIntegerField(default=0, help_text="Alerts taken in so far.")
    own = models.BigIntegerField(default=0, help_text="Alerts left out since they came from here.")
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class InboundAlert(models.Model):
    """An alert that Alertmanager sent us, by its fingerprint; it stands as an anomaly as well."""

    source = models.ForeignKey(
        InboundSource, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    source_name = models.CharField(max_length=60, default="", help_text="Kept when it goes.")

    fingerprint = models.CharField(max_length=64)
    starts_at = models.DateTimeField()
    anomaly = models.OneToOneField(Anomaly, on_delete=models.CASCADE, related_name="inbound")
    labels = models.JSONField(default=dict)
    annotations = models.JSONField(default=dict)
    ends_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint", "starts_at"], name="alerts_inboundalert_identity"
            )
        ]
