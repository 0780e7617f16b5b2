"""E-mail by Django's backend and the SMTP server of the configuration."""

from __future__ import annotations

import email.utils
import re
import smtplib
import socket
import ssl

from django.conf import settings as django
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage, get_connection
from django.core.mail.message import BadHeaderError
from django.core.validators import validate_email

from alerts.message import Message
from alerts.outgoing import Client
from alerts.receivers.base import Field, Kind, Outcome, Result, Secrets, Settings, clipped

MOST_ADDRESSES = 50
NO_SERVER = (
    "There is no SMTP server in the configuration: set alerts.mail.host, and the password"
    " in VIGIL_ALERTS__MAIL__PASSWORD."
)


class Mail(Kind):
    kind = "email"
    about = "Plain text to one or more addresses, by the SMTP server of the configuration."
    fields = (
        Field("to", "To", required=True, longest=4_000,
              help="One address or several, with commas between them."),
    )  # fmt: skip

    def problems(self, settings: Settings, secrets: Secrets) -> dict[str, str]:
        addresses = _addresses(settings)
        if not 0 < len(addresses) <= MOST_ADDRESSES:
            return {"to": f"1 to {MOST_ADDRESSES} addresses, with commas between them."}
        for address in addresses:
            try:
                validate_email(address)
            except ValidationError:
                return {"to": f"{clipped(address, 60)!r} is no e-mail address."}
        return {}

    def send(self, message: Message, settings: Settings, secrets: Secrets,
             client: Client) -> Result:  # fmt: skip
        if not django.EMAIL_HOST:
            return Result(Outcome.PERMANENT, "no server", NO_SERVER)
        domain = _domain()
        thread = f"<{re.sub(r'[^A-Za-z0-9.-]', '-', message.thread)}@{domain}>"
        # One id whenever it is sent again: mail servers drop the second one. Its answers belong
        # to one conversation.
        headers = {"Message-ID": f"<{message.key}@{domain}>", "References": thread,
                   "In-Reply-To": thread, "Auto-Submitted": "auto-generated",
                   "Idempotency-Key": str(message.key)}  # fmt: skip
        mail = EmailMessage(
            subject=clipped(" ".join(message.subject.split()), 200),
            body=_body(message), to=_addresses(settings), headers=headers,
            connection=get_connection(fail_silently=False),
        )  # fmt: skip
        try:
            mail.send()
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            words = "; ".join(f"{who}: {_said(text)}" for who, (_, text) in
                              error.recipients.items())  # fmt: skip
            return _by_code(max(codes, default=550), words)
        except smtplib.SMTPResponseException as error:
            return _by_code(error.smtp_code, _said(error.smtp_error))
        except smtplib.SMTPNotSupportedError as error:
            return Result(Outcome.PERMANENT, "smtp", str(error))
        except (BadHeaderError, UnicodeError) as error:
            return Result(Outcome.PERMANENT, "message", str(error))
        except (smtplib.SMTPException, ssl.SSLError, TimeoutError, OSError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Result(Outcome.TRANSIENT, "no answer", f"{django.EMAIL_HOST}: {what}")
        return Result(Outcome.OK, "250", f"taken for {len(_addresses(settings))}")


def _addresses(settings: Settings) -> list[str]:
    parts = re.split(r"[,;\s]+", str(settings.get("to", "")))
    return list(dict.fromkeys(part for part in parts if part))


def _domain() -> str:
    _, sender = email.utils.parseaddr(django.DEFAULT_FROM_EMAIL)
    return sender.partition("@")[2] or socket.gethostname()


def _body(message: Message) -> str:
    links = "\n".join(f"{label}: {url}" for label, url in message.links)
    return f"{message.body}\n\n{links}\n" if links else f"{message.body}\n"


def _said(text: bytes | str) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _by_code(code: int, words: str) -> Result:
    """4xx passes, 5xx stays (RFC 5321); what no server says is a broken connection."""
    outcome = Outcome.PERMANENT if code >= 500 else Outcome.TRANSIENT
    return Result(outcome, str(code), clipped(" ".join(words.split()), 400))
