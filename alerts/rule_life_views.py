"""A rule's life beside its text: versions, name and team, a test to its receivers, retiring it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from alerts import delivery, found, past, rules
from alerts.models import Incident, IncidentAnomaly, Receiver, Rule, RuleVersion, Team
from alerts.rules import RuleError
from alerts.spec import RuleSpec
from streams import audit
from streams.audit import Action
from streams.roles import may_operate, operator_required

SHOWN = 50
DAYS = 7


@require_http_methods(["GET", "POST"])
@login_required
def rule_history(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Versions with what changed between them; an operator takes an old one up as a draft."""
    rule = _rule(pk)
    if request.method == "POST":
        return _take_up(request, rule)
    return _history(request, rule)


@operator_required
def _take_up(request: HttpRequest, rule: Rule) -> HttpResponseBase:
    number = request.POST.get("number", "")
    if not (number.isascii() and number.isdigit()):
        return HttpResponse("number is that of a version.", status=400)
    version = get_object_or_404(RuleVersion, rule=rule, number=int(number[:9]))
    rules.draft_of(rule, RuleSpec.read(version.spec), request.user)
    messages.success(request, f"The draft says what {version} said. Look at it, then make it live.")
    return redirect("rule", pk=rule.pk)


@require_POST
@operator_required
def rule_describe(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Give a rule another name or team."""
    rule = _rule(pk)
    name, given = request.POST.get("name", ""), request.POST.get("team", "")
    team = None
    if given:
        number = int(given) if given.isascii() and given.isdigit() and len(given) < 18 else 0
        team = Team.objects.filter(pk=number).first()
        if team is None:
            return _history(request, rule, wrong={"team": "This team is not there (any more)."})
    try:
        rules.describe(rule, name, team, request.user)
    except RuleError as error:
        return _history(request, rule, wrong={"name": str(error)}, name=name[:200])
    messages.success(request, "It is saved.")
    return redirect("rule-history", pk=pk)


@require_POST
@operator_required
def rule_test(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Send a test to everybody whom the rule, as it is shown, would tell."""
    rule = _rule(pk)
    names = list(dict.fromkeys(step.receiver for step in rules.shown_spec(rule).send))
    told = list(Receiver.objects.filter(name__in=names, enabled=True).order_by("name"))
    if not told:
        why = "its receivers are switched off" if names else "it tells nobody yet"
        messages.warning(request, f"No test was sent: {why}.")
        return redirect("rule", pk=pk)
    now, by = timezone.now(), request.user.get_username()
    for receiver in told:
        delivery.send_test(receiver, by, now, rule.name)
    audit.record(request.user, Action.ACTED, rule, None, {"test": [r.name for r in told]})
    off = [name for name in names if name not in {r.name for r in told}]
    rest = f" Switched off or gone: {', '.join(off)}." if off else ""
    messages.success(
        request, f"A test of {rule.name} goes to {', '.join(r.name for r in told)}.{rest}"
    )
    return redirect("/alerts/deliveries/?reason=test")


@require_http_methods(["GET", "POST"])
@operator_required
def rule_retire(request: HttpRequest, pk: int) -> HttpResponseBase:
    """What retiring a rule means, in numbers; and doing it."""
    rule = _rule(pk)
    if rule.live is None or rule.retired_at is not None:
        messages.warning(request, "Only a rule that was live, and is not retired, can be retired.")
        return redirect("rule", pk=pk)
    if request.method == "POST":
        rules.retire(rule, request.user)
        messages.success(request, f"{rule.name} is retired: it tells nobody. Its history stays.")
        return redirect("rules")
    context = {"rule": rule, "effect": _effect(rule), "days": DAYS}
    return render(request, "alerts/rule_retire.html", context)


@require_POST
@operator_required
def rule_back(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Take a retired rule into the lists again, switched off."""
    rule = _rule(pk)
    rules.bring_back(rule, request.user)
    messages.success(request, f"{rule.name} is back, switched off. Look at it, then switch it on.")
    return redirect("rule", pk=pk)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a rule did in the last days, and what nobody else would tell."""

    incidents: int
    sent: int
    alone: int
    open: int
    told: tuple[str, ...]


def _effect(rule: Rule) -> Effect:
    now = timezone.now()
    since = now - timedelta(days=DAYS)
    mine = Incident.objects.filter(rule=rule)
    recent = mine.filter(opened_at__gte=since)
    elsewhere = IncidentAnomaly.objects.filter(
        anomaly__memberships__incident=OuterRef("pk"), incident__rule__enabled=True
    ).exclude(incident__rule=rule)
    return Effect(
        recent.count(), past.really_sent(rule.pk, since, now),
        recent.filter(~Exists(elsewhere)).count(), mine.filter(found.ACTIVE).count(),
        tuple(dict.fromkeys(s.receiver for s in rules.shown_spec(rule).send)),
    )  # fmt: skip


def _rule(pk: int) -> Rule:
    return get_object_or_404(Rule.objects.select_related("live", "draft_by", "team"), pk=pk)


def _history(
    request: HttpRequest, rule: Rule, wrong: dict[str, str] | None = None, name: str = ""
) -> HttpResponse:
    versions = list(rule.versions.select_related("created_by").order_by("-number")[: SHOWN + 1])
    pairs = zip(versions, [*versions[1:], None], strict=True)
    changes = [
        (version, rules.difference(RuleSpec.read(older.spec) if older else None,
                                   RuleSpec.read(version.spec)))
        for version, older in pairs
    ][:SHOWN]  # fmt: skip
    draft = None
    if rule.draft is not None:
        draft = rules.difference(rules.live_spec(rule), RuleSpec.read(rule.draft))
    context = {"rule": rule, "changes": changes, "draft": draft, "wrong": wrong or {},
               "name": name or rule.name, "teams": Team.objects.order_by("name"),
               "operator": may_operate(request.user)}  # fmt: skip
    status = 400 if wrong else 200
    return render(request, "alerts/rule_history.html", context, status=status)
