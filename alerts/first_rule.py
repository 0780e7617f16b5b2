"""Rules that come by themselves, once each. A new installation has one, so that incidents are there
to be seen before anything is set up; it tells nobody until somebody adds a receiver to it.
"""

from __future__ import annotations

from django.db import transaction

from alerts import rules
from alerts.models import Lease, Rule, RuleVersion
from alerts.spec import Group, Matcher, RuleSpec
from streams import audit
from streams.audit import Action, Actor

NAME = "High and above"
_MADE = "first rule"

SPEC = RuleSpec(match=Matcher(min_severity="high"), group=Group(by="incident", wait_s=10))


def ensure() -> bool:
    """Make it where there has never been a rule: one that somebody retired stays away."""
    return not Rule.objects.exists() and once(_MADE, NAME, SPEC)


def once(mark: str, name: str, spec: RuleSpec, actor: Actor = None) -> bool:
    """Make a live rule, if that was never done before; says whether it was made."""
    with transaction.atomic():
        _, first = Lease.objects.get_or_create(name=mark, defaults={"data": {"rule": name}})
        if not first or Rule.objects.filter(name=name).exists():
            return False
        rule = Rule.objects.create(name=name, enabled=True)
        rule.live = RuleVersion.objects.create(rule=rule, number=1, spec=spec.stored())
        rule.save(update_fields=["live"])
        audit.record(actor or audit.person_here(), Action.CREATED, rule, None, rules.facts(rule))
    return True
