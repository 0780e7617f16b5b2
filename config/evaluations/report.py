"""How figures leave an evaluation: a plain table, a JSON file, a row of `detection.Evaluation`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser, OutputWrapper

Cell = str | int | float | None
R = TypeVar("R")


def add_arguments(parser: CommandParser, *, store: bool = True) -> None:
    """The options that every kind of evaluation shares."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes all figures there")
    if store:
        parser.add_argument(
            "--store",
            metavar="STREAM",
            help="also keeps the figures with this stream in the database",
        )


def grouped(results: Sequence[R], name: Callable[[R], str]) -> list[tuple[str, list[R]]]:
    """Results by the name of their group, in order, and all of them."""
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(name(result), []).append(result)
    return [*groups.items(), ("all", list(results))]


def table(out: OutputWrapper, headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """First column to the left, numbers to the right; None is a dash."""
    text = [list(headers), *([_shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in text) for at in range(len(headers))]
    for row in text:
        first, *rest = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        out.write("  ".join([first, *rest]).rstrip())


def deliver(
    kind: str, settings: Mapping[str, Any], metrics: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Write and store the figures as the options ask.

    Raises:
        CommandError: the file can't be written, or there is no such stream or model.
    """
    path = options.get("json")
    if path is not None:
        content = {"kind": kind, "settings": settings, "metrics": metrics}
        try:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path}: can't be written: {error.strerror}") from error
    if options.get("store") or options.get("model"):
        _store(kind, settings, metrics, options.get("store"), options.get("model"))


def known_stream(name: str) -> Any:
    """The stream's row, asked before anything costs time.

    Raises:
        CommandError: there is none of this name, or PostgreSQL does not answer.
    """
    from django.db import DatabaseError

    from streams.models import Stream

    try:
        row = Stream.objects.filter(name=name).first()
        names = ", ".join(Stream.objects.order_by("name").values_list("name", flat=True))
    except DatabaseError as error:
        raise CommandError(f"streams are in PostgreSQL, which does not answer: {error}") from error
    if row is None:
        raise CommandError(f"there is no stream {name!r}; there is {names or 'none yet'}")
    return row


def _store(
    kind: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    stream: str | None,
    model: int | None,
) -> None:
    from detection.models import Evaluation, ModelVersion

    row = known_stream(stream) if stream else None
    version = None
    if model:
        version = ModelVersion.objects.defer("artefact").filter(pk=model).first()
        if version is None:
            raise CommandError(f"there is no model {model}: `manage.py models` lists them")
        row = row or version.stream
    Evaluation.objects.create(
        kind=kind, stream=row, model=version, settings=dict(settings), metrics=dict(metrics)
    )


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
