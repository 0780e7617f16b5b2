"""Admin pages whose changes are written down with before and after."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from streams import audit
from streams.audit import Action
from streams.readonly_admin import OperatorsLookAdmin


class AuditedAdmin(OperatorsLookAdmin):
    """Each row that is saved or deleted here leaves an entry in the audit, or stays as it was."""

    unaudited: tuple[str, ...] = ()
    """Fields that follow from others, such as a version or a time stamp."""

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        with transaction.atomic():
            before = None
            if change:
                stored = type(obj)._default_manager.select_for_update(of=("self",)).get(pk=obj.pk)
                before = audit.facts(stored, self.unaudited)
            super().save_model(request, obj, form, change)
            action = Action.CHANGED if change else Action.CREATED
            audit.record(request.user, action, obj, before, audit.facts(obj, self.unaudited))

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        with transaction.atomic():
            before = audit.facts(obj, self.unaudited)
            audit.record(request.user, Action.DELETED, obj, before, None)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                self.delete_model(request, obj)
