"""Addresses that are secrets themselves."""

from __future__ import annotations

from alerts import outgoing
from alerts.receivers.base import Secrets


def secret_url_problem(name: str, secrets: Secrets) -> dict[str, str]:
    """What is wrong with an address that is kept as a secret; a reference is looked up later."""
    value = secrets.get(name, "")
    if value.startswith(("env:", "file:")):
        return {}
    problem = outgoing.problem_of(value)
    return {name: problem} if problem else {}
