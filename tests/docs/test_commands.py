"""What the documents tell to type works: options, addresses, variables and headings of links.

That commands, make targets and linked files exist is tests/architecture/test_docs.py's.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import Resolver404, resolve

from config.loading import config_path
from tests.architecture.sources import APPS, PROJECT, files
from tests.docs.test_configuration import KEYS

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
LINE = re.compile(r"manage\.py ([a-z_]+)((?: [^\n;|&]*)?)")
ADDRESS = re.compile(r"(?:GET |POST |127\.0\.0\.1:8000)(/[a-z][a-z/_-]*(?:\{[a-z]+\}[a-z/_-]*)*)")
VARIABLE = re.compile(r"\bVIGIL_[A-Z0-9_]+\b")
ANCHOR = re.compile(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)")

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)


def _code(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    return [block or span for block, span in CODE.findall(text)]


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _options(inner)


def _known_options(name: str) -> set[str]:
    command = load_command_class(get_commands()[name], name)
    return set(_options(command.create_parser("manage.py", name)))


@by_document
def test_each_option_of_a_command_exists(document: Path) -> None:
    unknown = [
        f"manage.py {name} {word}"
        for code in _code(document)
        for name, rest in LINE.findall(code)
        for word in shlex.split(rest.replace("…", ""), comments=True)
        if word.startswith("--") and word.partition("=")[0] not in _known_options(name)
    ]
    assert unknown == []


@by_document
def test_each_address_leads_to_a_view(document: Path) -> None:
    missing = []
    for code in _code(document):
        for address in ADDRESS.findall(code):
            try:
                resolve(re.sub(r"\{[a-z]+\}", "x", address.replace("{id}", "1")))
            except Resolver404:
                missing.append(address)
    assert missing == []


@by_document
def test_each_variable_is_read_somewhere(document: Path) -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for app in APPS for file in files(app))
    known = {key.variable for key in KEYS} | {"VIGIL_STREAMS"}
    named = set(VARIABLE.findall("\n".join(_code(document))))
    unknown = [
        name
        for name in sorted(named)
        if name.removesuffix("_FILE") not in known
        and re.sub(r"__\d+__", "__0__", name) not in known
        and f'"{name}"' not in source
        and not name.endswith("_")  # VIGIL_<SECTION>__<KEY>
    ]
    assert unknown == []


@by_document
def test_each_linked_heading_exists(document: Path) -> None:
    missing = []
    for path, anchor in ANCHOR.findall(document.read_text(encoding="utf-8")):
        target = document.parent / path if path else document
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        if anchor not in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}:
            missing.append(f"{path}#{anchor}")
    assert missing == []


def test_each_key_of_the_file_is_documented() -> None:
    """By name; the file may leave keys out, and loading refuses what the schema lacks."""
    text = config_path({}).read_text(encoding="utf-8")
    names = set(re.findall(r"^\s*(?:- )?([a-z_]+):", text, re.MULTILINE))
    parts = {part for key in KEYS for part in key.path}
    assert names - parts == set()
