"""Promotion as people and programs ask for it: through the gate, or openly past it."""

from __future__ import annotations

from typing import Any

from detection import gate, model_store
from detection.errors import TransitionRefused
from detection.gate import GateResult
from detection.models import ModelVersion


class GateFailed(TransitionRefused):
    """The gate says no; `verdict` says why."""

    def __init__(self, message: str, verdict: GateResult) -> None:
        super().__init__(message)
        self.verdict = verdict


def verdict_of(model: ModelVersion) -> GateResult | None:
    """What the gate says of a version now; None where it has nothing to compare it with.

    That is without a champion, with one that can't be loaded, and for the champion itself.

    Raises:
        ArtefactError: the version itself can't be loaded.
    """
    model_store.load(model.pk)
    champion = model_store.champion(model.stream, model.metric, model.algorithm)
    if champion is None or champion.pk == model.pk or not model_store.is_sound(champion):
        return None
    return gate.judge(model)


def as_json(verdict: GateResult) -> dict[str, Any]:
    """For the API."""
    return {
        "passed": verdict.passed, "reasons": list(verdict.reasons), "figures": verdict.figures,
    }  # fmt: skip


def promote(
    identity: int, *, actor: str, reason: str = "", anyway: bool = False
) -> tuple[ModelVersion, GateResult | None]:
    """Promote a version that passes the gate; `anyway` with a reason passes by it.

    A retired version was champion or judged before: bringing it back is no new promotion.

    Raises:
        ModelVersion.DoesNotExist: no such version.
        ArtefactError: it can't be loaded.
        GateFailed: the gate says no.
        TransitionRefused: `anyway` without a reason.
    """
    row = ModelVersion.objects.select_related("stream").defer("artefact").get(pk=identity)
    if row.state == ModelVersion.State.CHAMPION:
        return row, None
    if anyway:
        if not reason.strip():
            raise TransitionRefused("promoting past the gate needs a reason: say why")
        return model_store.promote(identity, actor=actor, reason=f"past the gate: {reason}"), None
    verdict = None if was_champion(row) else verdict_of(row)
    if verdict is not None and not verdict.passed:
        why = " ".join(verdict.reasons)
        raise GateFailed(f"{model_store.describe(row)} does not pass the gate: {why}", verdict)
    return model_store.promote(identity, actor=actor, reason=reason), verdict


def was_champion(row: ModelVersion) -> bool:
    """Whether it scored as champion before."""
    return row.promoted_at is not None
