"""Drift as Prometheus gauges: read from the newest reports whenever somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.db import Error
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from detection import drift

log = logging.getLogger(__name__)

LABELS = ["stream", "metric", "algorithm", "feature"]


class DriftCollector(Collector):
    """``vigil_drift_psi`` and ``vigil_drift_ks``; the metric is empty for all metrics together."""

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is asked of the database to register."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        psi, ks = self._families()
        try:
            for report in drift.latest():
                model = report.model
                place = [model.stream.name, report.metric, model.algorithm]
                for family, values in ((psi, report.psi), (ks, report.ks)):
                    for feature, value in values.items():
                        family.add_metric([*place, feature], value)
        except Error as error:
            log.warning("drift.unreadable error=%s", error)
        yield psi
        yield ks

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "vigil_drift_psi", "Population stability index of live against training.",
                labels=LABELS,
            ),
            GaugeMetricFamily(
                "vigil_drift_ks", "Kolmogorov-Smirnov distance of live from training.",
                labels=LABELS,
            ),
        )  # fmt: skip


_registered: list[DriftCollector] = []


def register() -> None:
    """Let this process tell of drift; harmless when repeated."""
    if not _registered:
        _registered.append(DriftCollector())
        REGISTRY.register(_registered[0])
