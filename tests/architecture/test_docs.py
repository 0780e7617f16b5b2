"""What the documents tell to type exists: make targets, commands, files and links."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from django.core.management import get_commands

from tests.architecture.sources import PROJECT

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
MAKE = re.compile(r"(?:^|[`$\s])make ([a-z]+)(?=[\s`.,;:)]|$)", re.MULTILINE)
MANAGE = re.compile(r"manage\.py ([a-z_]+)")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)


def _code(document: Path) -> str:
    return "\n".join(CODE.findall(document.read_text(encoding="utf-8")))


@by_document
def test_each_make_target_exists(document: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(MAKE.findall(_code(document))) - targets == set()


@by_document
def test_each_command_exists(document: Path) -> None:
    assert set(MANAGE.findall(_code(document))) - set(get_commands()) == set()


@by_document
def test_each_link_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@by_document
def test_no_document_names_a_place_of_one_machine(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:root|home/\w+)/", text) == []


def test_the_changelog_knows_the_version() -> None:
    changelog = PROJECT / "CHANGELOG.md"
    if not changelog.exists():
        pytest.skip("no changelog yet")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    version = project["project"]["version"]
    text = changelog.read_text(encoding="utf-8")
    assert version in text or "Unreleased" in text
