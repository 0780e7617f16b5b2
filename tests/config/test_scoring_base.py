"""What the configuration makes of its statistical methods: detectors by the registry's names."""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import VigilConfig
from config.wiring import load_model, scoring_base
from detection.ensemble import DEFAULT_WEIGHTS
from detection.versions import FORMAT, compile_version


def base(**detection: Any) -> dict[str, Any]:
    return scoring_base(VigilConfig.model_validate({"anomaly_detection": detection}))


def names(payload: dict[str, Any]) -> list[str]:
    rest = {"format": FORMAT, "time_zone": "UTC", "policies": [], "models": []}
    return [d.name for d in compile_version(0, payload | rest, load_model).detectors]


def test_out_of_the_box_it_is_the_z_score_at_3() -> None:
    payload = base()
    assert payload["detectors"]["zscore"] == {"enabled": True, "threshold": 3.0}
    assert payload["detectors"]["change_point"]["enabled"] is False
    assert names(payload) == ["online", "zscore", "shift"]


@pytest.mark.parametrize("method", ["mad", "ewma", "iqr", "seasonal"])
def test_another_method_takes_its_place(method: str) -> None:
    payload = base(detectors={"statistical": {"method": method, "threshold": 4.0}})
    assert payload["detectors"][method] == {"enabled": True, "threshold": 4.0}
    assert "zscore" not in payload["detectors"]
    assert names(payload) == ["online", method, "shift"]


def test_several_methods_and_the_change_point_vote_side_by_side() -> None:
    detectors = {
        "statistical": {"method": ["seasonal", "zscore"]},
        "change_point": {"enabled": True, "threshold": 9.0},
    }
    payload = base(detectors=detectors)
    assert names(payload) == ["online", "zscore", "seasonal", "change_point", "shift"]
    off = base(detectors={"statistical": {"method": ["seasonal", "zscore"], "enabled": False}})
    assert names(off) == ["online", "shift"]


def test_weights_by_method_win_over_that_of_all_statistical_ones() -> None:
    payload = base(
        detectors={"statistical": {"method": ["mad", "iqr"]}},
        weights={"statistical": 0.3, "iqr": 0.2, "change_point": 2.0},
    )
    assert (payload["weights"]["mad"], payload["weights"]["iqr"]) == (0.3, 0.2)
    assert payload["weights"]["change_point"] == 2.0
    assert payload["weights"]["online"] == DEFAULT_WEIGHTS["online"]
    assert base()["weights"]["zscore"] == DEFAULT_WEIGHTS["zscore"]


def test_a_version_stored_before_there_were_methods_still_compiles() -> None:
    payload = base()
    payload["detectors"]["zscore"] = {"enabled": True, "method": "zscore", "threshold": 3.0}
    assert names(payload) == ["online", "zscore", "shift"]
