"""Receivers' and deliveries' pages: who may, what is said of bad input, and no secret anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from alerts import vault
from alerts.models import Notification, Receiver
from alerts.receivers import KINDS
from streams.models import AuditEntry
from tests import builders
from tests.alerts import rows

pytestmark = pytest.mark.django_db

GOOD: dict[str, dict[str, str]] = {
    "email": {"s_to": "a@x.example, b@x.example"},
    "webhook": {"s_url": "https://example.com/hook", "s_secret": "sixteen-characters-"},
    "alertmanager": {"s_url": "https://am.example", "s_labels": "team=payments"},
    "pagerduty": {"s_region": "eu", "s_routing_key": "0123456789abcdef0123456789abcdef"},
    "slack": {"s_url": "https://hooks.slack.example/services/T0/B0/hushhushhushhush"},
    "teams": {"s_url": "https://x.logic.example/workflows/1?sig=hushhushhushhush"},
    "telegram": {"s_chat_id": "-1001", "s_token": "123456:ABCdefGHIjklMNOpqrSTUvwxYZ01234"},
    "apprise": {"s_url": "discord://1234567890/abcdefghijklmnop"},
}
PLAIN = {"name": "ops", "per_minute": "30", "digest_minutes": "0", "enabled": "on"}


@pytest.fixture
def operator() -> User:
    return builders.user("olga", is_staff=True)


@pytest.fixture
def page(client: Client, operator: User) -> Client:
    client.force_login(operator)
    return client


def test_every_kind_has_good_settings_here() -> None:
    assert set(GOOD) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_receiver_of_each_kind_is_made_and_its_secrets_are_never_shown(
    page: Client, kind: str
) -> None:
    assert page.get(f"/alerts/receivers/new/{kind}").status_code == 200
    answer = page.post(f"/alerts/receivers/new/{kind}", PLAIN | GOOD[kind])
    row = Receiver.objects.get()
    assert answer.headers["Location"] == f"/alerts/receivers/{row.pk}/"
    secrets = vault.unseal(row.secrets)
    wanted = {f.name for f in KINDS[kind].fields if f.secret and f.required}
    assert wanted <= set(secrets)
    shown = page.get(f"/alerts/receivers/{row.pk}/").text + page.get("/alerts/receivers/").text
    shown += str(list(AuditEntry.objects.values_list("before", "after")))
    assert [v for v in secrets.values() if v in shown or v in str(row.settings)] == []
    # Saved again without them, they stay.
    kept = {k: v for k, v in GOOD[kind].items() if k[2:] not in secrets}
    page.post(f"/alerts/receivers/{row.pk}/", PLAIN | kept | {"name": "other"})
    row.refresh_from_db()
    assert (row.name, vault.unseal(row.secrets)) == ("other", secrets)


@pytest.mark.parametrize("kind", sorted(GOOD))
@pytest.mark.parametrize(
    "bad", ["", "\x00", "x" * 20_000, "💥", "{% load static %}", "9" * 30, "-1", "http://[::1"]
)
def test_bad_input_is_told_at_its_field(page: Client, kind: str, bad: str) -> None:
    good = PLAIN | GOOD[kind]
    for name in [*good, "team", "quiet_hours", "subject_template", "body_template"]:
        answer = page.post(f"/alerts/receivers/new/{kind}", good | {name: bad})
        assert answer.status_code in (302, 400), (name, bad)
        if answer.status_code == 400:
            assert answer.context["form"].errors, (name, bad)
        Receiver.objects.all().delete()


def test_a_name_is_given_once(page: Client) -> None:
    rows.receiver("ops")
    answer = page.post("/alerts/receivers/new/email", PLAIN | GOOD["email"])
    assert answer.context["form"].errors == {"name": "Another receiver has this name."}


def test_an_address_inside_is_taken_and_refused_when_sending(page: Client) -> None:
    """What may be reached is decided by the address at the time, not by the text of a name."""
    given = PLAIN | GOOD["webhook"] | {"s_url": "https://10.0.0.1/x"}
    assert page.post("/alerts/receivers/new/webhook", given).status_code == 302


def test_viewers_look_and_change_nothing(client: Client) -> None:
    client.force_login(builders.user("viola"))
    row = rows.receiver()
    note = rows.notification(row, state="dead")
    for path in ("/alerts/receivers/", f"/alerts/receivers/{row.pk}/", "/alerts/deliveries/",
                 f"/alerts/deliveries/{note.pk}/"):  # fmt: skip
        assert client.get(path).status_code == 200, path
    for path in (f"/alerts/receivers/{row.pk}/", f"/alerts/receivers/{row.pk}/test",
                 f"/alerts/receivers/{row.pk}/delete", "/alerts/receivers/new/email",
                 f"/alerts/deliveries/{note.pk}/resend", "/alerts/deliveries/resend",
                 "/alerts/receivers/preview"):  # fmt: skip
        assert client.post(path, PLAIN).status_code == 403, path
    assert client.get("/alerts/receivers/new/email").status_code == 403


def test_a_test_is_written_and_its_page_follows_it(page: Client) -> None:
    row = rows.receiver()
    answer = page.post(f"/alerts/receivers/{row.pk}/test")
    note = Notification.objects.get()
    assert (note.reason, note.state) == ("test", "waiting")
    shown = page.get(answer.headers["Location"]).text
    assert "every 1s" in shown
    assert "This is a test" in shown


def test_dead_ones_are_sent_again_one_by_one_or_all(page: Client) -> None:
    row, other = rows.receiver(), rows.receiver("other")
    notes = [rows.notification(to, state="dead", attempts=3) for to in (row, row, other)]
    page.post(f"/alerts/deliveries/{notes[0].pk}/resend")
    page.post(f"/alerts/deliveries/{notes[0].pk}/resend")
    assert Notification.objects.filter(state="waiting").count() == 1
    page.post("/alerts/deliveries/resend", {"receiver": str(row.pk)})
    assert Notification.objects.filter(state="waiting").count() == 2
    page.post("/alerts/deliveries/resend")
    assert Notification.objects.filter(state="waiting", forgiven=3).count() == 3


@pytest.mark.parametrize(
    "query", ["state=dead", "state=nonsense", "receiver=x", "receiver=99999999999999999999",
              "before=nonsense", "before=2026-99-99T00:00:00", "before=2026-11-24", "reason=%00"],
)  # fmt: skip
def test_filters_take_anything(page: Client, query: str) -> None:
    rows.notification(rows.receiver(), state="dead")
    assert page.get(f"/alerts/deliveries/?{query}").status_code == 200


def test_templates_are_shown_as_they_would_be(page: Client) -> None:
    given: dict[str, Any] = {"subject_template": "{{ word }} {{ nonsense }}",
                             "body_template": "{{ sources|join:' + ' }}"}  # fmt: skip
    shown = page.post("/alerts/receivers/preview", given).text
    assert "⟨nonsense: not known⟩" in shown
    assert "checkout-eu + payments-gw" in shown
    wrong = page.post("/alerts/receivers/preview", given | {"body_template": "{% include 'x' %}"})
    assert (wrong.status_code, "Invalid block tag" in wrong.text) == (200, True)


def test_deleting_asks_for_the_name(page: Client) -> None:
    row = rows.receiver()
    page.post(f"/alerts/receivers/{row.pk}/delete", {"name": "wrong"})
    assert Receiver.objects.count() == 1
    page.post(f"/alerts/receivers/{row.pk}/delete", {"name": "ops"})
    assert Receiver.objects.count() == 0
