"""Your settings: what each user sets for the pages they see."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from streams.models import Preferences
from streams.zones import browser_zone, chosen_zone, known_zones, zones_by_region


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def your_settings(request: HttpRequest) -> HttpResponse:
    chosen, wrong = chosen_zone(request), ""
    if request.method == "POST" and "shortcuts" in request.POST:
        on = request.POST["shortcuts"] == "on"
        Preferences.objects.update_or_create(
            user_id=request.user.pk or 0, defaults={"shortcuts": on}
        )
        messages.success(request, f"Keyboard shortcuts are {'on' if on else 'off'}.")
        return redirect("your-settings")
    if request.method == "POST":
        chosen = request.POST.get("time_zone", "")
        if not chosen or chosen in known_zones():
            Preferences.objects.update_or_create(
                user_id=request.user.pk or 0, defaults={"time_zone": chosen}
            )
            messages.success(request, f"Times are shown in {chosen or 'your browser’s time zone'}.")
            return redirect("your-settings")
        wrong = f"{chosen[:60]!r} is no time zone that is known here. Choose one of the list."
    context = {
        "chosen": chosen, "wrong": wrong, "browser": browser_zone(request),
        "regions": zones_by_region(), "now": timezone.now(),
    }  # fmt: skip
    return render(request, "streams/your_settings.html", context, status=400 if wrong else 200)
