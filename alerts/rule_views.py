"""Rules: the list, the editor with its preview. Views parse, query, render.

Nothing becomes live, and nothing is switched on or off, but from a preview of that very spec: the
preview hands out a token, and the change asks for it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from alerts import past, rehearsal, rule_form, rules, yaml_text
from alerts.models import Rule
from alerts.preview import STEPS_S
from alerts.problems import WrongError
from alerts.rule_form import RuleForm
from alerts.rules import RuleError
from alerts.spec import RuleSpec
from streams.roles import may_operate, operator_required

SHOWN = 8
MOST_SHOWN = 500
LONGEST_YAML = 64_000


@login_required
@require_GET
def rule_list(request: HttpRequest) -> HttpResponse:
    """All rules: whether they count, whom they tell, what they sent lately."""
    return render(request, "alerts/rule_list.html", _list(request))


def _list(request: HttpRequest, **more: Any) -> dict[str, Any]:
    retired = request.GET.get("retired") == "1"
    rows = Rule.objects.select_related("live", "team", "draft_by").order_by("name")
    rows = rows.exclude(retired_at=None) if retired else rows.filter(retired_at=None)
    since = timezone.now() - timedelta(days=7)
    sent = past.sent_by_rule(since, timezone.now())
    rows = rows.annotate(
        opened=Count("incidents", Q(incidents__opened_at__gte=since), distinct=True)
    )
    shown = []
    for rule in rows:
        spec = rules.shown_spec(rule)
        shown.append({
            "rule": rule, "spec": spec, "sent": sent.get(rule.pk, 0),
            "to": list(dict.fromkeys(step.receiver for step in spec.send)),
        })  # fmt: skip
    others = Rule.objects.exclude(retired_at=None).count()
    return {"rows": shown, "operator": may_operate(request.user), "retired": retired,
            "retired_count": others, **more}  # fmt: skip


@require_POST
@operator_required
def rule_new(request: HttpRequest) -> HttpResponseBase:
    """A new rule, or a copy of another one, as a draft."""
    name = request.POST.get("name", "")
    spec = RuleSpec()
    try:
        copied = request.POST.get("copy", "")
        if copied.isdecimal():
            source = get_object_or_404(Rule, pk=int(copied[:12]))
            spec, name = rules.shown_spec(source), name or f"{source.name[:90]} copy"
        rule = rules.make(name, spec, request.user)
    except RuleError as error:
        context = _list(request, wrong=str(error), name=name[:200])
        return render(request, "alerts/rule_list.html", context, status=400)
    return redirect("rule", pk=rule.pk)


@login_required
@require_GET
def rule_edit(request: HttpRequest, pk: int) -> HttpResponse:
    """The editor; its preview comes right after the page."""
    rule = _rule(pk)
    form = rule_form.of_spec(rules.shown_spec(rule))
    return render(request, "alerts/rule_edit.html", _editor(request, rule, form))


@login_required
@require_GET
def rule_preview(request: HttpRequest, pk: int) -> HttpResponse:
    """What the draft, or what is live, would have sent."""
    rule = _rule(pk)
    return render(request, "alerts/_preview.html", _preview(request, rule, rules.shown_spec(rule)))


@require_POST
@operator_required
def rule_draft(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Keep what is edited, if it can be read, and preview it; else say what is wrong where."""
    rule = _rule(pk)
    before = rules.shown_spec(rule)
    text = request.POST.get("yaml")
    form = _of_yaml(text, before) if text is not None else rule_form.of_post(request.POST, before)
    if form.spec is not None:
        rules.save_draft(rule, form.spec, request.user)
    whole = any(name in request.POST for name in ("add", "drop", "unsilence")) or (
        "silence" in request.POST and request.headers.get("HX-Target") == "rule-card"
    )
    context = _editor(request, rule, form, text)
    if request.headers.get("HX-Request") != "true":
        if form.spec is not None:
            return redirect(f"{request.path.removesuffix('draft')}?{request.GET.urlencode()}")
        return render(request, "alerts/rule_edit.html", context, status=400)
    # Another kind of rule has other fields.
    if whole or (form.spec is not None and form.spec.when.kind != before.when.kind):
        response = render(request, "alerts/_rule_card.html", context | {"fresh": True})
        response["HX-Retarget"], response["HX-Reswap"] = "#rule-card", "outerHTML"
        response["HX-Trigger"] = "drafted"
        return response
    if form.spec is not None:
        context |= _preview(request, rule, form.spec)
    return render(request, "alerts/_drafted.html", context)


@require_POST
@operator_required
def rule_live(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Make the draft live, or switch the rule on or off: what was previewed, and nothing else."""
    rule = _rule(pk)
    spec = rules.shown_spec(rule)
    if not rules.was_seen(request.POST.get("seen", ""), rule, spec, request.user):
        messages.error(request, "It has changed since that preview. Look at this one, then go on.")
        return redirect("rule", pk=pk)
    try:
        match request.POST.get("do"):
            case "live":
                score = _solved(rule, spec)
                version = rules.make_live(rule, spec, request.user)
                rules.keep_solved(rule, score)
                messages.success(request, f"{version} is live: it counts from now on.")
            case "on" | "off" as word:
                rules.set_enabled(rule, word == "on", request.user)
                messages.success(
                    request, f"{rule.name} is {'on' if word == 'on' else 'off: it tells nobody'}."
                )
            case _:
                return HttpResponse("do is live, on or off.", status=400)
    except RuleError as error:
        messages.error(request, str(error))
    return redirect("rule", pk=pk)


def _solved(rule: Rule, spec: RuleSpec) -> float | None:
    if spec.when.budget_per_day is None:
        return None
    found = rehearsal.of_rule(rule, spec).solved
    return found.score if found is not None else None


@require_POST
@operator_required
def rule_discard(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Forget the draft; a rule that never was live goes with it."""
    rule = _rule(pk)
    if rules.discard(rule, request.user):
        messages.success(request, f"The draft of {rule.name} is discarded.")
        return redirect("rule", pk=pk)
    messages.success(request, f"{rule.name} was never live and is gone.")
    return redirect("rules")


# ---- Contexts ------------------------------------------------------------------------------------
def _rule(pk: int) -> Rule:
    return get_object_or_404(Rule.objects.select_related("live", "draft_by", "team"), pk=pk)


def _of_yaml(text: str, before: RuleSpec) -> RuleForm:
    try:
        spec = rules.read_spec(yaml_text.read(text, longest=LONGEST_YAML))
        if wrong := rules.unknown_names(spec):
            raise WrongError(wrong)
    except WrongError as error:
        form = rule_form.of_spec(before)
        form.spec = None
        form.errors["yaml"] = " ".join(f"{p}." for p in error.problems)
        return form
    return rule_form.of_spec(spec)


def _editor(
    request: HttpRequest, rule: Rule, form: RuleForm, text: str | None = None
) -> dict[str, Any]:
    spec = form.spec or rules.shown_spec(rule)
    as_yaml = text is not None or request.GET.get("as") == "yaml"
    return {
        "rule": rule, "form": form, "choices": rule_form.choices(form), "as_yaml": as_yaml,
        "yaml": text if text is not None else yaml_text.written(spec.stored()),
        "next": rules.next_number(rule), "operator": may_operate(request.user),
        "days": _days(request), "fields": [*_shown_fields(spec), "send", "silences", "form", "yaml",
                                           *(f"send.{i}" for i in range(len(form.steps)))],
        "advanced": _advanced(spec),
    }  # fmt: skip


def _shown_fields(spec: RuleSpec) -> list[str]:
    """Fields whose mistakes have a place on the page: a rule's kind decides which it has."""
    kind = spec.when.kind
    others = {"when.kind", *(name for name in rule_form.TEXTS if not name.startswith("when."))}
    if kind == "anomaly":
        others |= {"when.count", "when.within_s", "when.on", "when.min_score", "when.direction",
                   "when.budget_per_day", "when.min_duration_s",
                   "when.share_of_series"}  # fmt: skip
    else:
        others |= {"when.for_s", "when.at_least"}
        others -= {"match.tags"}
    if kind == "pipeline":
        others |= {"when.metric", "when.value"}
        others -= {name for name in others if name.startswith("match.")}
    return sorted(others)


def _advanced(spec: RuleSpec) -> bool:
    """Whether the further conditions say anything."""
    plain, when = RuleSpec(), spec.when
    same = ("min_score", "budget_per_day", "direction", "min_duration_s", "share_of_series")
    return bool(spec.match.tags) or any(getattr(when, n) != getattr(plain.when, n) for n in same)


def _preview(request: HttpRequest, rule: Rule, spec: RuleSpec) -> dict[str, Any]:
    days = _days(request)
    compare = request.GET.get("compare") == "live" and rule.draft is not None
    found = rehearsal.of_rule(rule, spec, days, with_live=compare)
    context: dict[str, Any] = {
        "rule": rule, "spec": spec, "found": found, "days": days, "all_days": rehearsal.DAYS,
        "seen": rules.seen_token(rule, spec, request.user), "operator": may_operate(request.user),
        "next": rules.next_number(rule), "step_s": STEPS_S[days], "compare": compare,
    }  # fmt: skip
    if found.run is not None:
        every = found.run.notifications[::-1]
        shown = MOST_SHOWN if request.GET.get("show") == "all" else SHOWN
        context |= {"said": every[:shown], "more": len(every) - min(len(every), shown)}
        context["funnel"] = _funnel(found, spec)
        if found.live is not None:
            mine = {(s.key, s.reason, s.at) for s in found.run.notifications}
            theirs = {(s.key, s.reason, s.at) for s in found.live.notifications}
            context |= {
                "gone": [s for s in found.live.notifications[::-1]
                         if (s.key, s.reason, s.at) not in mine][:shown],
                "gone_count": len(theirs - mine), "new_count": len(mine - theirs),
                "both_count": len(mine & theirs),
                "new_keys": {f"{s.key}{s.number}" for s in found.run.notifications
                             if (s.key, s.reason, s.at) not in theirs},
            }  # fmt: skip
    return context


def _funnel(found: rehearsal.Rehearsal, spec: RuleSpec) -> list[dict[str, Any]]:
    run, when = found.run, spec.when
    if run is None:
        return []
    together = (
        f"{when.count} in {rule_form.duration(when.within_s)} on {dict(rule_form.ON)[when.on]}"
    )
    if when.share_of_series:
        together = f"{when.share_of_series:.0%} of a source's series"
    elif when.count == 1:
        together = "each by itself"
    by = {"incident": "one per incident", "rule": "one for everything"}.get(
        spec.group.by, f"one per {spec.group.by}"
    )
    cool = f"{rule_form.duration(spec.cooldown_s)} between repeats" if spec.cooldown_s else "none"
    held = ", ".join(f"{n:,} fell in {name}" for name, n in run.by_silence.most_common(2))
    rows = [
        ("Anomalies that match", run.matched, "before anything"),
        ("Reach the rule", run.reached, together),
        ("After grouping", run.grouped, by),
        ("After cool-down", run.cooled, cool),
        ("After silences", run.cooled - run.silenced, held or "none fell in a silence"),
    ]
    if run.unwanted:
        rows.append(("Reach a receiver", run.sent, f"{run.unwanted:,} that no receiver takes"))
    return [
        {"name": n, "count": c, "why": w, "last": i == len(rows) - 1}
        for i, (n, c, w) in enumerate(rows)
    ]


def _days(request: HttpRequest) -> int:
    given = request.GET.get("days", "")
    return int(given) if given in [str(d) for d in rehearsal.DAYS] else 7
