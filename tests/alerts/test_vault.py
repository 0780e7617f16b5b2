"""Secrets are encrypted, follow SECRET_KEY's rotation, and are struck out of what is kept."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from alerts import vault
from alerts.models import Receiver

VALUES = {"url": "https://hooks.example/T0/B0/abcdefghijklmnopqrst", "token": "hush-hush-123"}


def test_what_is_sealed_shows_nothing_and_opens_again() -> None:
    sealed = vault.seal(VALUES)
    assert "hush" not in sealed
    assert "hooks" not in sealed
    assert vault.unseal(sealed) == VALUES
    assert vault.seal(VALUES) != sealed
    assert vault.seal({}) == ""
    assert vault.unseal("") == {}


def test_a_former_key_opens_and_another_does_not(settings: Any) -> None:
    settings.SECRET_KEY = "the-first-key"
    sealed = vault.seal(VALUES)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the-second", ["the-first-key"]
    assert vault.unseal(sealed) == VALUES
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(vault.SecretError, match="SECRET_KEY_FALLBACKS"):
        vault.unseal(sealed)
    for broken in (sealed[:-9] + "AAAAAAAA=", "nonsense", "gAAAAA"):
        with pytest.raises(vault.SecretError):
            vault.unseal(broken)


@pytest.mark.django_db
def test_rotation_closes_them_by_the_present_key(settings: Any) -> None:
    settings.SECRET_KEY = "the-first-key"
    receiver = Receiver.objects.create(name="r", kind="slack", secrets=vault.seal(VALUES))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the-second", ["the-first-key"]
    assert vault.rotate() == 1
    settings.SECRET_KEY_FALLBACKS = []
    receiver.refresh_from_db()
    assert vault.unseal(receiver.secrets) == VALUES


def test_a_reference_is_looked_up_where_it_may_point(tmp_path: Path, settings: Any) -> None:
    settings.VIGIL = settings.VIGIL.model_copy(
        update={"alerts": settings.VIGIL.alerts.model_copy(update={"secrets_dir": str(tmp_path)})}
    )
    (tmp_path / "pager").write_text("from-a-file\n")
    settings.VIGIL_SECRETS = {"VIGIL_SECRET_PAGER": "from-outside", "DATABASE_URL_COPY": "x"}
    sealed = vault.seal({"a": "env:VIGIL_SECRET_PAGER", "b": f"file:{tmp_path}/pager", "c": "x"})
    assert vault.revealed(sealed) == {"a": "from-outside", "b": "from-a-file", "c": "x"}
    assert vault.unseal(sealed)["a"] == "env:VIGIL_SECRET_PAGER"
    outside = tmp_path / "out"
    outside.symlink_to("/etc/passwd")
    for wrong in ("env:DATABASE_URL_COPY", "env:SECRET_KEY", "env:VIGIL_SECRET_NOT_SET", "env:",
                  "file:/etc/passwd", f"file:{tmp_path}/../../etc/passwd", f"file:{outside}",
                  f"file:{tmp_path}/none", "file:", f"file:{tmp_path}", "file:\x00"):  # fmt: skip
        assert vault.reference_problem(wrong), wrong
        with pytest.raises(vault.SecretError):
            vault.looked_up(wrong)


def test_secrets_are_struck_in_every_form() -> None:
    token = "p@ss/wörd-of-some-length+"
    coded = base64.b64encode(token.encode()).decode()
    quoted = "p%40ss%2Fw%C3%B6rd-of-some-length%2B"
    text = f"you sent {token}, {coded} and {quoted} to /T0/B0/abcdefghijklmnopqrst"
    found = vault.struck(text, [token, VALUES["url"], ""])
    assert found == "you sent •••, ••• and ••• to /T0/B0/•••" or (
        "ss" not in found and "abcdefgh" not in found and coded[:20] not in found
    )
    assert vault.struck("nothing here", ["abc", ""]) == "nothing here"
