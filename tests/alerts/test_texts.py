"""Templates of messages read no file, change nothing, and cost what was known before."""

from __future__ import annotations

import time

import pytest

from alerts import texts, wording

VALUES = wording.values_of(wording.sample(None))


def filled(source: str) -> str:
    return texts.rendered(source, VALUES, texts.LONGEST_BODY)


def test_values_conditions_and_loops() -> None:
    source = "{% for s in sources %}{{ s|upper }}{% if not forloop.last %}, {% endif %}{% endfor %}"
    assert filled(source) == "CHECKOUT-EU, PAYMENTS-GW, DB-PRIMARY"
    assert filled("{{ anomaly.tags.team }} {{ anomaly.metric|truncate:8 }}") == "payments payment…"
    assert filled("{{ nothing }}{{ nothing|default:'–' }}") == "–"
    assert filled("<b> & {{ title }}").startswith("<b> & Level")


@pytest.mark.parametrize(
    "source",
    [
        "{% include '/etc/passwd' %}", "{% extends 'base.html' %}", "{% load static %}",
        "{% debug %}", "{% csrf_token %}", "{% url 'overview' %}", "{% now 'Y' %}",
        "{% with a=title %}{{ a }}{% endwith %}", "{% ssi '/etc/passwd' %}", "{% cycle 'a' 'b' %}",
        "{{ title|ljust:1000000000 }}", "{{ title|add:title }}", "{{ title|pprint }}",
        "{{ title._private }}", "{{ title.__class__ }}", "{% if %}", "{{ title|nonsense }}", "{{",
        "{% for a in sources %}", "{{ title|truncate:'x' }}", "x" * 10_001, "\x00",
        "{% for a in sources %}" * 4 + "{{ a }}" + "{% endfor %}" * 4,
        "{% if title %}" * 900 + "{% endif %}" * 900,
    ],
)  # fmt: skip
def test_what_could_hurt_is_refused_with_words(source: str) -> None:
    if source == "{{":
        assert filled(source) == "{{"
        return
    with pytest.raises(texts.TextError) as caught:
        filled(source)
    assert str(caught.value)


def test_methods_with_effects_are_out_of_reach() -> None:
    for source in ("{{ anomaly.clear }}", "{{ anomaly.pop }}", "{{ sources.clear }}",
                   "{{ anomaly.tags.update }}", "{{ anomaly._values }}"):  # fmt: skip
        try:
            assert filled(source) == ""
        except texts.TextError:
            continue
    assert filled("{{ anomaly.metric }} {{ sources|length }}") == "payment_latency_ms 3"


def test_the_longest_that_is_let_in_ends_soon() -> None:
    values = {"many": ["x" * 2_000] * 50}
    loop = "{% for a in many %}{% for b in many %}" + "{{ a }}" * 11 + "{% endfor %}{% endfor %}"
    began = time.monotonic()
    assert len(texts.rendered(loop, values, 6_000)) == 6_000
    assert time.monotonic() - began < 5


def test_a_template_that_fails_gives_the_usual_words() -> None:
    assert wording._filled("{% nonsense %}", wording.SUBJECT, VALUES, 200).startswith("Critical: ")
    assert wording._filled("{{ rule }}", wording.SUBJECT, VALUES, 200) == "Checkout paging"


def test_an_overspent_budget_says_which_and_by_how_much() -> None:
    row = wording.sample(None)
    row.incident, row.reason = None, "budget"
    row.payload = {"name": "payments", "title": "Team payments was told 9 times, 5 were meant."}
    message = wording.message_of(row)
    assert message.subject == "Budget overspent: payments"
    assert message.body == "Team payments was told 9 times, 5 were meant."
