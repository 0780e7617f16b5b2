"""What operators see of the admin, and pages for rows that the pipeline owns: every app shows its
own with this."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from streams.roles import may_operate


class OperatorsLookAdmin(admin.ModelAdmin[Any]):
    """Operators may look; to change it takes an admin, or a permission that one gave."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return may_operate(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_operate(request.user)


class ReadOnlyAdmin(OperatorsLookAdmin):
    """Rows that the pipeline owns: to be looked at."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
