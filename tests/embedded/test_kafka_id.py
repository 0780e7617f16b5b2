"""The embedded broker's name for its cluster."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64decode
from collections.abc import Iterator

import pytest

from config.embedded import kafka


def test_a_cluster_id_never_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Iterator[bytes] = iter([b"\xf8" + bytes(15), b"\xfb" + bytes(15), bytes(range(16))])
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=next(drawn)))
    assert urlsafe_b64decode(kafka._cluster_id() + "==") == bytes(range(16))
