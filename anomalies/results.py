"""One anomaly as others read it: on `anomaly-results`, in the API and on the live socket."""

from __future__ import annotations

from typing import Any

from anomalies.models import Anomaly, Severity
from streams.clock import from_us


def result_of(anomaly: Anomaly) -> dict[str, Any]:
    """The documented result; needs the anomaly's `stream` loaded to stay at no query."""
    result = {
        "id": str(anomaly.pk),
        "source": anomaly.source,
        "metric": anomaly.metric,
        "value": anomaly.value,
        "timestamp": anomaly.onset_at.isoformat().replace("+00:00", "Z"),
        "is_anomaly": True,
        "anomaly_score": anomaly.score,
        "anomaly_type": anomaly.anomaly_type,
        "anomaly_type_so_far": anomaly.state == Anomaly.State.OPEN and anomaly.kind != "missing",
        "state": anomaly.state,
        "severity": Severity(anomaly.severity).label,
        "end_timestamp": anomaly.end_at.isoformat().replace("+00:00", "Z"),
        "count": anomaly.count,
        "peak_value": anomaly.peak_value,
        "peak_score": anomaly.peak_score,
        "expected": _expected(anomaly),
        "detectors": anomaly.detectors,
        "explanation": anomaly.explanation or anomaly.message,
        "model_version": _model_version(anomaly.models_used),
        "stream": anomaly.stream.name if anomaly.stream else None,
        "partition": anomaly.partition,
        "offset": anomaly.offset,
        "origin": anomaly.origin,
    }
    if silence := (anomaly.evidence or {}).get("silence"):
        result["silence"] = {
            "since": from_us(silence["since"]).isoformat().replace("+00:00", "Z"),
            "usual_s": silence["usual_s"],
            "limit_s": silence["limit_s"],
        }
    return result


def _expected(anomaly: Anomaly) -> dict[str, float | None] | None:
    if anomaly.expected_mid is None and anomaly.expected_low is None:
        return None
    return {
        "low": anomaly.expected_low,
        "mid": anomaly.expected_mid,
        "high": anomaly.expected_high,
    }


def _model_version(used: dict[str, Any]) -> str | None:
    named = [f"{name} v{model.get('version')}" for name, model in sorted(used.items())]
    return ", ".join(named) or None
