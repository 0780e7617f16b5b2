"""The unit of a metric, where its name says it: payment_latency_ms is in ms."""

from __future__ import annotations

UNITS = {
    "ms": "ms", "us": "µs", "ns": "ns", "s": "s", "sec": "s", "seconds": "s", "min": "min",
    "minutes": "min", "hours": "h", "percent": "%", "pct": "%", "bytes": "B", "kb": "kB",
    "mb": "MB", "gb": "GB", "mbps": "Mbit/s", "hz": "Hz", "khz": "kHz", "rpm": "1/min",
    "celsius": "°C", "fahrenheit": "°F", "volts": "V", "amps": "A", "watts": "W", "kw": "kW",
    "kwh": "kWh", "bar": "bar", "hpa": "hPa", "kpa": "kPa", "mm": "mm", "cm": "cm", "kg": "kg",
    "usd": "USD", "eur": "EUR",
}  # fmt: skip
_PER = {"s": "s", "sec": "s", "second": "s", "min": "min", "minute": "min", "h": "h", "hour": "h",
        "day": "day"}  # fmt: skip


def unit_of(metric: str) -> str:
    """Its unit, or nothing where the name says none.

    >>> unit_of("payment_latency_ms"), unit_of("orders_per_min"), unit_of("cpu_usage")
    ('ms', '/min', '')
    """
    parts = metric.lower().replace("-", "_").replace(".", "_").split("_")
    if len(parts) < 2:
        return ""
    if len(parts) > 2 and parts[-2] == "per":
        return f"/{_PER[parts[-1]]}" if parts[-1] in _PER else ""
    return UNITS.get(parts[-1], "")
