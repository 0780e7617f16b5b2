"""An anomaly's row as a scored event shows it: what it was, what was expected, who said so."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np

from anomalies import evidence
from anomalies.explain import sentence, vector_sentence
from anomalies.models import Anomaly, AnomalyType
from anomalies.pending import new_row
from detection.ensemble import score_from_oddness
from detection.scoring import ScoredBatch, VectorDetail
from detection.thresholds import Policy
from streams.checkpoint import Owned
from streams.clock import from_us
from streams.models import Stream
from streams.series import SeriesIndex


def row_at_event(
    scored: ScoredBatch, i: int, *, identity: UUID, stream: Stream, index: SeriesIndex, life: Owned
) -> Anomaly:
    """The anomaly as the i-th event shows it (its onset, or a rise of it), with its sentence."""
    out, events, detail = scored.outcome, scored.events, scored.detail
    code = int(events.series[i])
    source, metric = index.names[code]
    expected = [_maybe(x) for x in detail.expected[i].tolist()]
    value = float(events.values[i, 0])
    mid = expected[1]
    direction = 0 if mid is None else (value > mid) - (value < mid)
    features = dict(zip(scored.feature_names, detail.features[i].tolist(), strict=True))
    context = _context(scored, i)
    if scored.vector is None:
        why = evidence.at_event(scored, i)
        kind = evidence.kind_at(why, direction, features, context)
    else:
        why, kind = _shares(scored.vector, i), AnomalyType.MULTIVARIATE
    votes = score_from_oddness(scored.votes[i]).tolist()
    policy = scored.version.policies.policies[int(scored.policy[i])]
    at = from_us(int(events.event_time[i]))
    score = float(scored.score[i])
    anomaly: Anomaly = new_row(
        Anomaly,
        id=identity,
        pk=identity,
        stream=stream,
        stream_id=stream.pk,
        series_id=int(index.ids[code]),
        source=source,
        metric=metric,
        anomaly_type=kind,
        severity=int(out.severity[i]),
        onset_at=at,
        end_at=at,
        value=value,
        score=score,
        peak_value=value,
        peak_score=score,
        peak_at=at,
        direction=direction,
        expected_low=expected[0],
        expected_mid=mid,
        expected_high=expected[2],
        threshold=float(out.threshold[i]),
        policy=_policy_text(policy, float(out.threshold[i])),
        detectors={name: _maybe(v) for name, v in zip(scored.version.names, votes, strict=True)},
        features=features,
        context=context,
        evidence=why,
        models_used={
            m.algorithm: {"version": m.version, "sha256": m.sha256, "metric": m.metric}
            for m in scored.version.models
            if m.metric in ("", metric)
        },
        incarnation_id=life.incarnation_id,
        partition=int(events.partition[i]),
        offset=int(events.offset[i]),
        last_offset=int(events.offset[i]),
        scoring_version_id=scored.version.id or None,
        late=bool(out.late[i]),
    )
    anomaly.explanation = _sentence(scored, i, anomaly)
    return anomaly


def _context(scored: ScoredBatch, i: int) -> list[list[float]]:
    """The series' last events up to its onset, oldest first, as [epoch ms, value]."""
    k = np.searchsorted(scored.outcome.context_at, i)
    if k == len(scored.outcome.context_at) or scored.outcome.context_at[k] != i:
        return []
    times, values = scored.outcome.context[k]
    return [[t / 1000.0, v] for t, v in zip(times.tolist(), values.tolist(), strict=True) if t]


def _sentence(scored: ScoredBatch, i: int, anomaly: Anomaly) -> str:
    low, mid, high = anomaly.expected_low, anomaly.expected_mid, anomaly.expected_high
    expected = None if low is None or mid is None or high is None else (low, mid, high)
    if scored.vector is not None and expected is not None:
        distance = float(scored.events.values[i, 0])
        why = anomaly.evidence
        return vector_sentence(
            anomaly.source, distance, expected[1], expected[2], why.get("shares", {}),
            why.get("values", {}),
        )  # fmt: skip
    return sentence(
        anomaly.source,
        anomaly.metric,
        float(scored.events.values[i, 0]),
        expected,
        AnomalyType(anomaly.anomaly_type),
        anomaly.direction,
        anomaly.onset_at,
        scored.version.time_zone,
    )


def _policy_text(policy: Policy, threshold: float) -> str:
    """Name, version, and why the threshold in effect is not the policy's own."""
    text = f"{policy.name} v{policy.version}" if policy.version else policy.name
    if threshold > policy.threshold:
        text += f", raised from {policy.threshold:g}: {policy.max_onsets_per_day:g} a day"
    return text[:140]


def _shares(vector: VectorDetail, i: int) -> dict[str, Any]:
    """What is known of the values of the i-th event, if it is.

    ``shares`` {value: its part in the squared distance}; ``values`` {value: as it came, its
    smoothed level, the usual one, and the one that goes with all the other values}.
    """
    parts = zip(vector.columns, vector.share[i].tolist(), strict=True)
    shares = {name: share for name, share in parts if share == share}
    if not shares:
        return {}
    columns = {
        "value": vector.value[i],
        "level": vector.level[i],
        "usual": vector.usual[i],
        "expected": vector.expected[i],
    }
    values = {
        name: {of: _maybe(float(column[j])) for of, column in columns.items()}
        for j, name in enumerate(vector.columns)
    }
    return {"shares": shares, "values": values}


def _maybe(x: float) -> float | None:
    return None if x != x else x
