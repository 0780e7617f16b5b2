"""Forms of teams and tags; each mistake is told at its field."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from django import forms
from django.contrib.auth.models import User

from alerts.hours import checked_zone
from alerts.models import Tag, Team


class TeamForm(forms.ModelForm[Team]):
    """Name, members, time zone and budget."""

    members = forms.ModelMultipleChoiceField(
        User.objects.filter(is_active=True).order_by("username"), required=False,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"invalid_choice": "This user is not there (any more).",
                        "invalid_pk_value": "This is no user."},
    )  # fmt: skip

    class Meta:
        model = Team
        fields = ("name", "time_zone", "budget_per_day", "members")
        error_messages: ClassVar[dict[str, Any]] = {
            "name": {"unique": "There is a team of that name already.",
                     "required": "A name has 1 to 100 characters."},
            "budget_per_day": {"invalid": "A number like 5, or nothing for no limit."},
        }  # fmt: skip

    def clean_time_zone(self) -> str:
        try:
            return checked_zone(str(self.cleaned_data["time_zone"] or "UTC"))
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None

    def clean_budget_per_day(self) -> float | None:
        budget: float | None = self.cleaned_data["budget_per_day"]
        if budget is not None and not (math.isfinite(budget) and 0 < budget <= 100_000):
            raise forms.ValidationError("More than 0 and at most 100,000 a day.")
        return budget


class TagForm(forms.ModelForm[Tag]):
    """``key=value`` and the patterns of series that have it."""

    class Meta:
        model = Tag
        fields = ("key", "value", "stream", "source", "metric")

    def clean(self) -> dict[str, str]:
        data: dict[str, str] = super().clean() or self.cleaned_data
        for name in ("key", "value"):
            if any(c in data.get(name, "") for c in ",="):
                self.add_error(name, "Neither a comma nor an equals sign.")
        return data
