"""The rule that a new installation has: incidents are there to be seen before anything is set up.

It tells nobody until somebody adds a receiver to it.
"""

from __future__ import annotations

from django.db import transaction

from alerts import rules
from alerts.models import Lease, Rule, RuleVersion
from alerts.spec import Group, Matcher, RuleSpec
from streams import audit
from streams.audit import Action

NAME = "High and above"
_MADE = "first rule"

SPEC = RuleSpec(match=Matcher(min_severity="high"), group=Group(by="incident", wait_s=10))


def ensure() -> bool:
    """Make it where there has never been one: a rule that somebody deleted stays away."""
    with transaction.atomic():
        _, first = Lease.objects.get_or_create(name=_MADE, defaults={"data": {"rule": NAME}})
        if not first or Rule.objects.exists():
            return False
        rule = Rule.objects.create(name=NAME, enabled=True)
        rule.live = RuleVersion.objects.create(rule=rule, number=1, spec=SPEC.stored())
        rule.save(update_fields=["live"])
        audit.record(audit.person_here(), Action.CREATED, rule, None, rules.facts(rule))
    return True
