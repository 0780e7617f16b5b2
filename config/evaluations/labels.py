"""`evaluate labels`: what was stored against what people said of it; reads PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser, OutputWrapper
from django.db import DatabaseError

from anomalies.judged import MATCH_S, figures
from config.evaluations import report
from config.schema import VigilConfig
from streams.models import Stream

HELP = "stored anomalies against the labels and reports that people gave (needs PostgreSQL)"


def add_arguments(parser: CommandParser) -> None:
    """Of which stream."""
    parser.add_argument("--stream", required=True, metavar="NAME")
    parser.add_argument(
        "--match",
        dest="match_s",
        type=float,
        default=MATCH_S,
        metavar="SECONDS",
        help="how near to a report an alarm must lie to have found it (600)",
    )
    parser.add_argument("--keep", action="store_true", help="keeps the figures with the stream")
    report.add_arguments(parser, store=False)


def run(config: VigilConfig, options: dict[str, Any], out: OutputWrapper) -> None:
    """A table of precisions and the sums below it."""
    name = options["stream"]
    try:
        stream = Stream.objects.filter(name=name).first()
        if stream is None:
            known = ", ".join(Stream.objects.order_by("name").values_list("name", flat=True))
            raise CommandError(f"there is no stream {name!r}; there is {known or 'none yet'}")
        found = figures(stream, options["match_s"])
    except DatabaseError as error:
        raise CommandError(
            f"the labels are in PostgreSQL, which does not answer: {error}"
        ) from error
    rows = [["ensemble", *found["labels"].values(), found["precision"]]]
    rows += [[who, *row.values()] for who, row in found["detectors"].items()]
    report.table(out, ["labelled", *found["labels"], "precision"], rows)
    out.write(
        f"\n{found['anomalies']:,} anomalies, {found['unlabelled']:,} without a label; "
        f"{found['reported_found']} of {found['reported']} reported ones found"
    )
    if found["days"]:
        out.write(
            f"in {found['days']:.1f} days: {found['alarms_a_day']:.2f} alarms a day, "
            f"{found['false_alarms_a_day']:.2f} of them labelled false alarms"
        )
    kept = {**options, "store": name if options["keep"] else None}
    report.deliver("labels", {"stream": name, "match_s": options["match_s"]}, found, kept)
