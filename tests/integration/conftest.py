"""No consumer and no rollup outlives its test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.harness import Consumer


@pytest.fixture(autouse=True)
def none_left_behind(transactional_db: None) -> Iterator[None]:
    """Kills them before the tables are emptied, which would wait for their locks."""
    yield
    while Consumer.started:
        Consumer.started.pop().kill()
