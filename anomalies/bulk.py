"""One label for many anomalies, by their ids or by the filters of a list, and its undoing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from anomalies import feedback
from anomalies.models import Anomaly, BulkLabel, BulkLabelled

MOST = 10_000
MOST_EXPECTED = 1_000
"""*Expected* counts events and asks for a release from quarantine, one by one."""
KEPT = timedelta(days=7)
"""For how long a bulk label can be taken back."""
_CHUNK = 500
_T = TypeVar("_T")


class TooManyError(Exception):
    """More than is labelled at once; says how many may be."""

    def __init__(self, most: int) -> None:
        super().__init__(f"At most {most:,} at once. Narrow the filters first.")


def most_of(label: str) -> int:
    return MOST_EXPECTED if label == Anomaly.Label.EXPECTED else MOST


def apply(chosen: QuerySet[Anomaly], label: str, user: AbstractBaseUser) -> tuple[BulkLabel, int]:
    """Label all that are chosen, but those that have this label already; how many were changed.

    In chunks of a transaction each, so that consumers never wait long for an episode of theirs.

    Raises:
        TooManyError: nothing was labelled.
    """
    most = most_of(label)
    keys = list(chosen.exclude(label=label).order_by().values_list("pk", flat=True)[: most + 1])
    if len(keys) > most:
        raise TooManyError(most)
    now = timezone.now()
    BulkLabel.objects.filter(at__lt=now - KEPT).delete()
    bulk = BulkLabel.objects.create(user_id=user.pk, label=label, at=now)
    changed = sum(_label(bulk, part, user) for part in _parts(sorted(keys)))
    return bulk, changed


def undo(bulk: BulkLabel) -> int:
    """Give back what each had before, but where somebody has labelled it anew since."""
    with transaction.atomic():
        bulk = BulkLabel.objects.select_for_update().get(pk=bulk.pk)
        if bulk.undone_at is not None:
            return 0
        bulk.undone_at = timezone.now()
        bulk.save(update_fields=["undone_at"])
    rows = bulk.labelled.order_by("anomaly_id").iterator(chunk_size=_CHUNK)
    return sum(_give_back(bulk, part) for part in _parts(rows))


def of(user: AbstractBaseUser | AnonymousUser, pk: int) -> BulkLabel | None:
    """A bulk label of this user's that can still be taken back."""
    since = timezone.now() - KEPT
    return BulkLabel.objects.filter(pk=pk, user=user.pk, undone_at=None, at__gte=since).first()


def _label(bulk: BulkLabel, keys: Sequence[UUID], user: AbstractBaseUser) -> int:
    with transaction.atomic():
        rows = _locked(keys).exclude(label=bulk.label)
        found = list(rows)
        BulkLabelled.objects.bulk_create(
            BulkLabelled(bulk=bulk, anomaly=a, label=a.label, labelled_by_id=a.labelled_by_id,
                         labelled_at=a.labelled_at) for a in found
        )  # fmt: skip
        _write(found, bulk.label, user.pk, bulk.at)
        feedback.ask_to_release(found, bulk.label, user)
    return len(found)


def _give_back(bulk: BulkLabel, rows: Sequence[BulkLabelled]) -> int:
    with transaction.atomic():
        found = {a.pk: a for a in _locked([row.anomaly_id for row in rows])}
        changed = 0
        for (label, by, at), group in _grouped(rows).items():
            ours = [
                a for key in group
                if (a := found.get(key)) and a.label == bulk.label
                and a.labelled_at == (bulk.at if bulk.label else None)
            ]  # fmt: skip
            _write(ours, label, by, at)
            feedback.ask_to_release(ours, label, bulk.user)
            changed += len(ours)
    return changed


def _grouped(
    rows: Sequence[BulkLabelled],
) -> dict[tuple[str, int | None, datetime | None], list[UUID]]:
    groups: dict[tuple[str, int | None, datetime | None], list[UUID]] = {}
    for row in rows:
        before = row.label, row.labelled_by_id, row.labelled_at
        groups.setdefault(before, []).append(row.anomaly_id)
    return groups


def _locked(keys: Sequence[UUID]) -> QuerySet[Anomaly]:
    rows = Anomaly.objects.select_for_update().filter(pk__in=keys).order_by("pk")
    return rows.defer("context", "features", "detectors")


def _write(rows: Sequence[Anomaly], label: str, by: int | None, at: datetime | None) -> None:
    Anomaly.objects.filter(pk__in=[a.pk for a in rows]).update(
        label=label, labelled_by=by if label else None, labelled_at=at if label else None,
        updated_at=timezone.now(),
    )  # fmt: skip


def _parts(rows: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(rows)
    while part := list(islice(left, _CHUNK)):
        yield part
