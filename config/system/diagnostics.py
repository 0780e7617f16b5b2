"""What one pastes into a question: versions, states, figures and settings, without any secret."""

from __future__ import annotations

from datetime import datetime

from config.system.effective import Setting
from config.system.figures import Figures
from config.system.jobs import Running
from config.system.servers import Server, libraries
from config.system.world import Check
from streams.version import VERSION


def text(
    now: datetime,
    servers: tuple[Server, ...],
    running: list[Running],
    work: Figures,
    queues: list[tuple[str, str, int | None]],
    checks: list[Check],
    settings: list[tuple[str, list[Setting]]],
) -> str:
    """Plain lines; settings only where they are not the usual ones."""
    lines = [f"Vigil {VERSION}, {now:%Y-%m-%d %H:%M:%S} UTC", ""]
    for server in servers:
        facts = server.wrong or ", ".join(
            f"{name} {fact}" for name, fact in server.facts if name not in ("address", "cluster")
        )
        lines.append(f"{server.name} {server.version}: {facts}".replace(" :", ":"))
    lines.append(", ".join(f"{name} {number}" for name, number in libraries()))
    lines += ["", "Processes"]
    lines += [
        f"  {one.process.kind} {one.process.pid}, {one.process.version}"
        f"{', gone' if one.gone else ''}, {one.process.rss_mb:.0f} MB: {one.doing}"
        for one in running
    ] or ["  none"]
    latency = "–" if work.latency_p95_ms is None else f"{work.latency_p95_ms:.0f} ms"
    cpu = "–" if work.cpu_us_per_event is None else f"{work.cpu_us_per_event:.1f} µs"
    lines += ["", f"{work.events_per_s:.0f} events/s, {work.lag} behind, latency p95 {latency}, "
                  f"CPU per event {cpu}"]  # fmt: skip
    lines += [f"  {name}: {'unknown' if n is None else n} {what}" for name, what, n in queues]
    lines += ["", "Stages"]
    lines += [f"  {check.state:4} {check.name}: {check.said}" for check in checks]
    lines += ["", "Settings that are not the usual ones"]
    lines += [
        f"  {one.key} = {one.value}" for _, found in settings for one in found if one.changed
    ] or ["  none"]
    return "\n".join(lines)
