"""Each kind says what its vendor wants, judges answers by class, and never tells a secret."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from alerts.message import Message
from alerts.outgoing import Client, Guard
from alerts.receivers import KINDS, problems_of
from alerts.receivers.base import Outcome, retry_after
from alerts.receivers.by_apprise import schemas, url_problem
from alerts.receivers.webhook import verified
from tests.alerts.http_server import Server, garbage, plain, reset, serving, silent

SECRET = "a-secret-of-16-characters"
ROUTING = "0123456789abcdef0123456789abcdef"
TOKEN = "123456:ABCdefGHIjklMNOpqrSTUvwxYZ01234"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def client() -> Client:
    return Client(Guard.of(["127.0.0.0/8"]), total_s=2)


def message(**more: Any) -> Message:
    given: dict[str, Any] = {
        "key": uuid.uuid4(), "thread": str(uuid.uuid4()), "reason": "opened", "severity": 4,
        "subject": "Critical: Checkout <slow> in *EU*", "body": "payment_latency_ms was 1,284.",
        "at": datetime(2026, 11, 23, 9, 38, tzinfo=UTC),
        "links": (("Open in Vigil", "https://vigil.example/incidents/7"),
                  ("Acknowledge", "https://vigil.example/act/abc")),
        "facts": (("Rule", "Checkout paging"), ("Sources", "checkout-eu & 2 more")),
        "payload": {"rule": "Checkout paging", "stream": "webshop", "sources": ["checkout-eu"],
                    "first_at": "2026-11-23T09:30:00+00:00"},
    }  # fmt: skip
    return Message(**given | more)


def ways(url: str) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Settings and secrets of each kind that speaks HTTP to an address of ours."""
    return {
        "webhook": ({"url": f"{url}/hook"}, {"secret": SECRET}),
        "alertmanager": ({"url": url}, {"token": SECRET}),
        "pagerduty": ({"endpoint": url}, {"routing_key": ROUTING}),
        "slack": ({}, {"url": f"{url}/services/T0/B0/{SECRET}"}),
        "teams": ({}, {"url": f"{url}/workflows/1?sig={SECRET}"}),
        "telegram": ({"endpoint": url, "chat_id": "-1001"}, {"token": TOKEN}),
    }


HTTP = sorted(ways(""))
FINE = plain(200, b'{"ok": true, "result": {}}')


@pytest.mark.parametrize("kind", HTTP)
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (FINE, Outcome.OK), (plain(400, b'{"ok": false}'), Outcome.PERMANENT),
        (plain(404), Outcome.PERMANENT), (plain(410), Outcome.PERMANENT),
        (plain(302, location="http://169.254.169.254/"), Outcome.PERMANENT),
        (plain(500), Outcome.TRANSIENT), (plain(502), Outcome.TRANSIENT),
        (plain(408), Outcome.TRANSIENT), (plain(429), Outcome.SLOW_DOWN),
        (plain(503, retry_after="7"), Outcome.SLOW_DOWN), (plain(503), Outcome.TRANSIENT),
        (reset, Outcome.TRANSIENT), (garbage, Outcome.TRANSIENT),
    ],
)  # fmt: skip
def test_an_answer_means_what_the_protocol_says(
    server: Server, client: Client, kind: str, answer: Any, outcome: Outcome
) -> None:
    server.answers = [answer]
    settings, secrets = ways(server.url)[kind]
    assert KINDS[kind].send(message(), settings, secrets, client).outcome == outcome
    assert len(server.got) == 1


@pytest.mark.parametrize("kind", HTTP)
def test_silence_is_transient_and_an_address_inside_permanent(server: Server, kind: str) -> None:
    server.usual = silent
    settings, secrets = ways(server.url)[kind]
    quick = Client(Guard.of(["127.0.0.0/8"]), total_s=0.2)
    assert KINDS[kind].send(message(), settings, secrets, quick).outcome == Outcome.TRANSIENT
    result = KINDS[kind].send(message(), settings, secrets, Client(Guard()))
    assert (result.outcome, result.status) == (Outcome.PERMANENT, "refused")


def test_retry_after_is_read_in_both_forms() -> None:
    now = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
    assert retry_after("90", now) == 90
    assert retry_after(format_datetime(now + timedelta(seconds=45), usegmt=True), now) == 45
    assert retry_after(format_datetime(now - timedelta(hours=1), usegmt=True), now) == 0
    assert retry_after("99999999", now) == 6 * 3_600
    for text in ("", "soon", "-3", "١٢", "Wed, 99 Xyz"):
        assert retry_after(text, now) is None


@pytest.mark.parametrize("kind", HTTP)
def test_waiting_is_as_long_as_told(server: Server, client: Client, kind: str) -> None:
    server.answers = [plain(429, b'{"ok":false,"parameters":{"retry_after":3}}', retry_after="3")]
    settings, secrets = ways(server.url)[kind]
    assert KINDS[kind].send(message(), settings, secrets, client).wait_s == 3


def test_a_webhook_is_signed_and_its_check_is_strict(server: Server, client: Client) -> None:
    one = message()
    settings, secrets = ways(server.url)["webhook"]
    KINDS["webhook"].send(one, settings, secrets | {"authorization": "Bearer b"}, client)
    got, now = server.got[0], time.time()
    assert got.headers["Idempotency-Key"] == str(one.key)
    assert got.headers["Authorization"] == "Bearer b"
    assert verified(SECRET, got.headers, got.body, now)
    assert not verified("another-secret-of-16", got.headers, got.body, now)
    assert not verified(SECRET, got.headers, got.body + b" ", now)
    assert not verified(SECRET, got.headers, got.body, now + 301)
    assert not verified(SECRET, got.headers | {"X-Vigil-Timestamp": "x"}, got.body, now)
    assert got.json["id"] == str(one.key)
    assert got.json["incident"] == one.thread
    assert SECRET.encode() not in got.body


def test_pagerduty_keeps_one_key_for_an_incident(server: Server, client: Client) -> None:
    settings, secrets = ways(server.url)["pagerduty"]
    thread = str(uuid.uuid4())
    for reason in ("opened", "worse", "acknowledged", "resolved"):
        KINDS["pagerduty"].send(message(reason=reason, thread=thread), settings, secrets, client)
    bodies = [got.json for got in server.got]
    actions = ["trigger", "trigger", "acknowledge", "resolve"]
    assert [b["event_action"] for b in bodies] == actions
    assert {b["dedup_key"] for b in bodies} == {f"vigil/{thread}"}
    assert {b["routing_key"] for b in bodies} == {ROUTING}
    assert bodies[0]["payload"]["severity"] == "critical"
    assert bodies[0]["payload"]["source"] == "checkout-eu"
    assert server.got[0].path == "/v2/enqueue"


def test_slack_gets_blocks_within_its_limits_and_no_mark_up_of_names(
    server: Server, client: Client
) -> None:
    settings, secrets = ways(server.url)["slack"]
    KINDS["slack"].send(message(body="<!channel> & " + "x" * 9_000), settings, secrets, client)
    body = server.got[0].json
    header, section, context, actions = body["blocks"]
    assert header["text"]["type"] == "plain_text"
    assert len(header["text"]["text"]) <= 150
    assert len(section["text"]["text"]) <= 3_000
    assert section["text"]["text"].startswith("&lt;!channel&gt; &amp;")
    assert actions["elements"][0]["url"].endswith("/incidents/7")
    assert "checkout-eu &amp; 2 more" in context["elements"][1]["text"]
    assert "&lt;slow&gt;" in body["text"]


def test_teams_gets_one_adaptive_card_of_at_most_28_kb(server: Server, client: Client) -> None:
    settings, secrets = ways(server.url)["teams"]
    KINDS["teams"].send(message(body="ä\n" * 20_000), settings, secrets, client)
    got = server.got[0]
    assert len(got.body) < 28_000
    (attachment,) = got.json["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["content"]["type"] == "AdaptiveCard"
    assert r"\*EU\*" in attachment["content"]["body"][0]["text"]
    assert got.path.startswith("/workflows/1?sig=")


def test_telegram_gets_plain_text_that_fits(server: Server, client: Client) -> None:
    settings, secrets = ways(server.url)["telegram"]
    more = {"topic": "5", "silent": True}
    KINDS["telegram"].send(message(body="y" * 9_000), settings | more, secrets, client)
    body = server.got[0].json
    assert len(body["text"]) <= 4_096
    assert body["text"].endswith("https://vigil.example/act/abc")
    assert body["message_thread_id"] == 5
    assert "parse_mode" not in body
    assert "disable_notification" not in body  # critical
    assert server.got[0].path == f"/bot{TOKEN}/sendMessage"


def test_telegram_says_no_with_200(server: Server, client: Client) -> None:
    settings, secrets = ways(server.url)["telegram"]
    server.answers = [plain(200, b'{"ok": false, "description": "chat not found"}'), plain(200)]
    result = KINDS["telegram"].send(message(), settings, secrets, client)
    assert (result.outcome, result.excerpt) == (Outcome.PERMANENT, "chat not found")
    result = KINDS["telegram"].send(message(), settings, secrets, client)
    assert result.outcome == Outcome.TRANSIENT


def test_alertmanager_gets_one_alert_that_ends_with_the_incident(
    server: Server, client: Client
) -> None:
    settings, secrets = ways(server.url)["alertmanager"]
    settings = settings | {"labels": "team=payments, env=prod", "hold_hours": "2"}
    one = message()
    now = datetime.now(UTC)
    KINDS["alertmanager"].send(one, settings, secrets, client)
    over = message(thread=one.thread, reason="resolved", severity=1)
    KINDS["alertmanager"].send(over, settings, secrets, client)
    (opened,), (ended,) = (got.json for got in server.got)
    assert opened["labels"] == ended["labels"]
    assert opened["labels"]["team"] == "payments"
    assert opened["startsAt"] == "2026-11-23T09:30:00+00:00"
    ahead = datetime.fromisoformat(opened["endsAt"]) - now
    assert timedelta(hours=1.9) < ahead < timedelta(hours=2.1)
    assert datetime.fromisoformat(ended["endsAt"]) <= datetime.now(UTC)
    assert server.got[0].path == "/api/v2/alerts"
    assert server.got[0].headers["Authorization"] == f"Bearer {SECRET}"


# ---- E-mail -------------------------------------------------------------------------------------
class Mailbox:
    """An SMTP server's handler: keeps what it takes, and says no where it is told to."""

    def __init__(self) -> None:
        self.got: list[Envelope] = []
        self.answer = ""

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str,
                          options: list[str]) -> str:  # fmt: skip
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        if address.startswith("later"):
            return "450 4.2.1 try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session,
                          envelope: Envelope) -> str:  # fmt: skip
        self.got.append(envelope)
        return self.answer or "250 taken"


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST = "127.0.0.1"
        settings.EMAIL_PORT = port
        settings.EMAIL_USE_TLS = False
        settings.DEFAULT_FROM_EMAIL = "Vigil <vigil@watch.example>"
        yield box
    finally:
        controller.stop()


def test_an_e_mail_arrives_with_the_same_id_whenever_it_is_sent(
    mailbox: Mailbox, client: Client
) -> None:
    one = message(subject="Critical: two\nlines", severity=4)
    for _ in range(2):
        result = KINDS["email"].send(one, {"to": "a@x.example, b@x.example"}, {}, client)
        assert result.outcome == Outcome.OK
    texts = [str(e.content, "utf-8") for e in mailbox.got]
    assert mailbox.got[0].rcpt_tos == ["a@x.example", "b@x.example"]
    for text in texts:
        assert f"Message-ID: <{one.key}@watch.example>" in text
        assert f"References: <{one.thread}@watch.example>" in text
        assert "Subject: Critical: two lines" in text
        assert "payment_latency_ms was 1,284." in text
        assert "https://vigil.example/incidents/7" in text


@pytest.mark.parametrize(
    ("to", "answer", "outcome", "status"),
    [
        ("nobody@x.example", "", Outcome.PERMANENT, "550"),
        ("later@x.example", "", Outcome.TRANSIENT, "450"),
        ("a@x.example", "554 spam", Outcome.PERMANENT, "554"),
        ("a@x.example", "451 local error", Outcome.TRANSIENT, "451"),
    ],
)
def test_smtp_codes_have_classes(
    mailbox: Mailbox, client: Client, to: str, answer: str, outcome: Outcome, status: str
) -> None:
    mailbox.answer = answer
    result = KINDS["email"].send(message(), {"to": to}, {}, client)
    assert (result.outcome, result.status) == (outcome, status)


def test_no_mail_server_is_transient_and_none_in_the_configuration_permanent(
    client: Client, settings: Any
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    assert KINDS["email"].send(message(), {"to": "a@x.example"}, {}, client).outcome == "transient"
    settings.EMAIL_HOST = ""
    assert KINDS["email"].send(message(), {"to": "a@x.example"}, {}, client).outcome == "permanent"


# ---- Apprise ------------------------------------------------------------------------------------
def test_apprise_is_for_services_with_a_fixed_host() -> None:
    assert {"discord", "pover", "opsgenie", "twilio"} <= schemas()
    generic = {"json", "jsons", "xml", "form", "mailto", "mailtos", "ntfy", "gotify", "matrix",
               "rocket", "mmost", "syslog", "fcm", "vapid", "hassio", "nctalk", "mqtt"}  # fmt: skip
    assert not generic & schemas()


@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1/x", "jsons://example.com", "xml://localhost", "mailto://a:b@example.com",
        "https://example.com/hook", "ntfy://10.0.0.1/x", "file:///etc/passwd", "nonsense", "",
        "discord://", "discord://1234567890/abcdefghijklmnop?template=/etc/passwd",
    ],
)  # fmt: skip
def test_apprise_refuses_hosts_of_ones_own_and_files(url: str, client: Client) -> None:
    assert url_problem(url)
    result = KINDS["apprise"].send(message(), {}, {"url": url}, client)
    assert (result.outcome, result.status) == (Outcome.PERMANENT, "refused")


def test_apprise_connects_under_the_guard() -> None:
    """Even a vendor's name that leads inside is refused, before a connection."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    inside = Client(Guard(resolve=resolve), total_s=2)
    url = "discord://1234567890/abcdefghijklmnop"
    assert url_problem(url) == ""
    result = KINDS["apprise"].send(message(), {}, {"url": url}, inside)
    assert asked == ["discord.com"]
    assert (result.outcome, result.status) == (Outcome.PERMANENT, "refused")


# ---- Forms --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_needed_field_is_asked_for(kind: str) -> None:
    needed = {f.name for f in KINDS[kind].fields if f.required}
    assert needed <= set(problems_of(KINDS[kind], {}, {}))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nonsense_in_every_field_is_a_sentence_and_no_exception(kind: str) -> None:
    for nonsense in ("\x00", "x" * 10_000, "://", "https://[", "💥", "-1e999", "a\r\nb: c"):
        settings = {f.name: nonsense for f in KINDS[kind].fields if not f.secret}
        secrets = {f.name: nonsense for f in KINDS[kind].fields if f.secret}
        found = problems_of(KINDS[kind], settings, secrets)
        assert found
        assert all(isinstance(words, str) and words for words in found.values())


def test_good_settings_have_no_problems() -> None:
    given = ways("https://example.com") | {
        "email": ({"to": "a@x.example"}, {}),
        "apprise": ({}, {"url": "discord://1234567890/abcdefghijklmnop"}),
    }
    assert {k: problems_of(KINDS[k], *given[k]) for k in KINDS} == {k: {} for k in KINDS}
    json.dumps({k: v[0] for k, v in given.items()})
