"""What detection may refuse, split by what the caller does next: reject, retrain or cold-start."""

from __future__ import annotations


class DetectionError(Exception):
    """Base of everything this app raises on purpose."""


class StateLayoutError(DetectionError):
    """A snapshot row was packed with another layout: start these series cold, and say so."""


class UnknownDetector(DetectionError):  # noqa: N818
    """No detector is registered under this name: the configuration is wrong."""


class NotEnoughData(DetectionError):  # noqa: N818
    """Too few rows to train on: keep the present model and try again with more history."""


class ArtefactError(DetectionError):
    """A stored model can't be used."""


class ArtefactCorrupt(ArtefactError):  # noqa: N818
    """The bytes are not those that were stored: restore the row from a backup or retrain."""


class ArtefactIncompatible(ArtefactError):  # noqa: N818
    """Written for other features, another format or another library version: retrain."""


class TransitionRefused(DetectionError):  # noqa: N818
    """A model's state can't change so; the message says why and what can be done instead."""


class TrainingCancelled(DetectionError):  # noqa: N818
    """Somebody asked for the end of this training."""


class TrainingLost(DetectionError):  # noqa: N818
    """The run was given up by others meanwhile: store nothing, change nothing."""


class FitDied(DetectionError):  # noqa: N818
    """The process that fitted a model came to no end of its own."""
