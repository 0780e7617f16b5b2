"""The form of a receiver: fields of its kind, secrets that are written and never shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from alerts import texts, vault, wording
from alerts.models import Hours, Receiver, Team
from alerts.receivers import KINDS, Field, problems_of
from alerts.rules import keeps_its_name

MOST_PER_MINUTE, MOST_DIGEST = 10_000, 1_440


@dataclass(slots=True)
class Shown:
    """One field of the kind as the page shows it; a secret's value is never in it."""

    spec: Field
    value: str = ""
    kept: str = ""
    error: str = ""


@dataclass(slots=True)
class ReceiverForm:
    """What was entered, and what is wrong with it, by field."""

    kind: str
    receiver: Receiver | None = None
    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, receiver: Receiver | None = None) -> ReceiverForm:
        """As it stands."""
        if receiver is None:
            usual = {f"s_{f.name}": f.usual for f in KINDS[kind].fields if f.usual}
            plain = {"per_minute": "30", "digest_minutes": "0", "enabled": "on"}
            return cls(kind, None, plain | usual)
        stored = receiver.settings if isinstance(receiver.settings, dict) else {}
        values = {f"s_{k}": _entered(v) for k, v in stored.items()} | {
            "name": receiver.name, "per_minute": str(receiver.per_minute),
            "digest_minutes": str(receiver.digest_minutes),
            "team": str(receiver.team_id or ""), "quiet_hours": str(receiver.quiet_hours_id or ""),
            "subject_template": receiver.subject_template, "body_template": receiver.body_template,
            "enabled": "on" if receiver.enabled else "",
        }  # fmt: skip
        return cls(kind, receiver, values)

    @classmethod
    def posted(cls, kind: str, receiver: Receiver | None, given: Mapping[str, str]) -> ReceiverForm:
        """As somebody sent it."""
        return cls(kind, receiver, {str(k): str(v) for k, v in given.items()})

    @property
    def fields(self) -> list[Shown]:
        """The kind's own fields."""
        stored = self._stored_secrets()
        found = []
        for spec in KINDS[self.kind].fields:
            error = self.errors.get(f"s_{spec.name}", "")
            if spec.secret:
                found.append(Shown(spec, "", _kept(stored.get(spec.name, "")), error))
            else:
                found.append(Shown(spec, self.values.get(f"s_{spec.name}", ""), "", error))
        return found

    def save(self) -> Receiver | None:
        """The stored receiver; None where ``errors`` say what is wrong."""
        row = self.receiver or Receiver(kind=self.kind)
        settings, secrets = self._kinds_own()
        row.name = self._name()
        row.per_minute = self._whole("per_minute", 1, MOST_PER_MINUTE)
        row.digest_minutes = self._whole("digest_minutes", 0, MOST_DIGEST)
        row.team = self._chosen("team", Team)
        row.quiet_hours = self._chosen("quiet_hours", Hours)
        row.enabled = bool(self.values.get("enabled"))
        row.subject_template = self._template("subject_template")
        row.body_template = self._template("body_template")
        if self.errors:
            return None
        row.settings, row.secrets = settings, vault.seal(secrets)
        # What was changed may work now.
        row.failures_in_a_row, row.closed_until, row.last_error = 0, None, ""
        try:
            with transaction.atomic():
                row.save()
        except IntegrityError:
            self.errors["name"] = "Another receiver has this name."
            return None
        return row

    # -- fields --------------------------------------------------------------------------------

    def _kinds_own(self) -> tuple[dict[str, Any], dict[str, str]]:
        settings: dict[str, Any] = {}
        secrets, kept = {}, self._stored_secrets()
        for spec in KINDS[self.kind].fields:
            value = self.values.get(f"s_{spec.name}", "").strip()
            if spec.secret:
                value = value or kept.get(spec.name, "")
                if self.values.get(f"forget_{spec.name}"):
                    value = ""
                if value:
                    secrets[spec.name] = value
                if vault.is_reference(value) and (wrong := vault.reference_problem(value)):
                    self.errors[f"s_{spec.name}"] = wrong
            elif spec.form == "flag":
                settings[spec.name] = bool(value)
            elif value:
                settings[spec.name] = value
        for name, words in problems_of(KINDS[self.kind], settings, secrets).items():
            self.errors.setdefault(f"s_{name}", words)
        return settings, secrets

    def _stored_secrets(self) -> dict[str, str]:
        return secrets_of(self.receiver) if self.receiver is not None else {}

    def _name(self) -> str:
        name = " ".join(self.values.get("name", "").split())
        if not 0 < len(name) <= 100 or not name.isprintable():
            self.errors["name"] = "A name of 1 to 100 characters."
        elif any(row != self.receiver for row in Receiver.objects.filter(name=name)):
            self.errors["name"] = "Another receiver has this name."
        elif self.receiver and (why := keeps_its_name("receiver", self.receiver.name, name)):
            self.errors["name"] = why
        return name

    def _whole(self, name: str, least: int, most: int) -> int:
        text = self.values.get(name, "").strip()
        if text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most:
            return int(text)
        self.errors[name] = f"A whole number from {least} to {most}."
        return least

    def _chosen(self, name: str, model: type[Any]) -> Any:
        text = self.values.get(name, "").strip()
        if not text:
            return None
        found = None
        if text.isascii() and text.isdigit() and len(text) < 18:
            found = model.objects.filter(pk=int(text)).first()
        if found is None:
            self.errors[name] = "This one is not there (any more)."
        return found

    def _template(self, name: str) -> str:
        source = self.values.get(name, "").replace("\r\n", "\n")
        if source.strip():
            try:
                # Filled in as well: a filter's argument shows only then whether it fits.
                texts.rendered(source, wording.values_of(wording.sample(None)), texts.LONGEST_BODY)
            except texts.TextError as error:
                self.errors[name] = str(error)
        return source if source.strip() else ""


def facts(row: Receiver, changed: Collection[str] = ()) -> dict[str, Any]:
    """A receiver for the audit: the names of its secrets and which were changed, no more."""
    names = ("name", "kind", "enabled", "settings", "subject_template", "body_template",
             "per_minute", "digest_minutes")  # fmt: skip
    found = {name: getattr(row, name) for name in names}
    found["team"] = row.team.name if row.team else None
    found["quiet_hours"] = row.quiet_hours.name if row.quiet_hours else None
    words = [f"{n} (another one)" if n in changed else n for n in sorted(secrets_of(row))]
    return found | {"secrets": words}


def secrets_of(row: Receiver) -> dict[str, str]:
    """Its secrets, references as they are; none where they can't be opened."""
    try:
        return vault.unseal(row.secrets)
    except vault.SecretError:
        return {}


def _kept(value: str) -> str:
    if not value:
        return ""
    return value if vault.is_reference(value) else "kept, not shown"


def _entered(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    return str(value)
