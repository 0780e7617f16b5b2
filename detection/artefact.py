"""Stored models: plain arrays with a manifest in a container that can't run code.

Layout: magic (8 bytes), length of the header (8, little-endian), header (JSON), then the arrays'
little-endian bytes one after the other. Equal arrays and manifest give equal bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detection.errors import ArtefactCorrupt, ArtefactIncompatible
from detection.features import FEATURE_NAMES, FEATURE_VERSION, VECTOR_VERSION

MAGIC = b"VIGILMDL"
FORMAT_VERSION = 1
LIBRARIES: tuple[str, ...] = ("numpy", "scikit-learn")
_DTYPES = frozenset(("<f8", "<f4", "<i8", "<i4", "<i2", "<u8", "<u4", "<u2", "|i1", "|u1", "|b1"))


class _Array(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    manifest: dict[str, Any]
    arrays: tuple[_Array, ...]


class _Format(msgspec.Struct, frozen=True):
    format: int


def dump(arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> tuple[bytes, str]:
    """(payload, sha256 hex). TypeError for arrays of objects, text or other non-numbers."""
    entries, buffers = [], []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, only numbers are stored")
        entries.append(_Array(name, array.dtype.str, array.shape))
        buffers.append(array.tobytes())
    header = msgspec.json.encode(
        _Header(FORMAT_VERSION, dict(manifest), tuple(entries)), order="deterministic"
    )
    payload = b"".join((MAGIC, len(header).to_bytes(8, "little"), header, *buffers))
    return payload, hashlib.sha256(payload).hexdigest()


def load(payload: bytes, sha256: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """(read-only arrays, manifest) of what `dump` gave.

    ArtefactCorrupt if the bytes are not those of `sha256`; ArtefactIncompatible if they are, but
    of another format.
    """
    found = hashlib.sha256(payload).hexdigest()
    if found != sha256:
        raise ArtefactCorrupt(
            f"the model's bytes have sha256 {found[:12]}…, not {sha256[:12]}…: "
            "restore it from a backup or retrain"
        )
    header, start = _header(payload)
    arrays: dict[str, NDArray[Any]] = {}
    for entry in header.arrays:
        if entry.dtype not in _DTYPES or any(size < 0 for size in entry.shape):
            raise ArtefactCorrupt(f"array {entry.name!r} is declared as {entry.dtype}")
        count = math.prod(entry.shape)
        end = start + count * np.dtype(entry.dtype).itemsize
        if end > len(payload):
            raise ArtefactCorrupt(f"array {entry.name!r} is cut short")
        flat = np.frombuffer(payload, dtype=entry.dtype, count=count, offset=start)
        arrays[entry.name] = flat.reshape(entry.shape)
        start = end
    if start != len(payload):
        raise ArtefactCorrupt("bytes are left over after the last array")
    return arrays, header.manifest


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape a model."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def check_compatible(manifest: Mapping[str, Any]) -> None:
    """ArtefactIncompatible unless this version of Vigil computes what the model was trained on.

    The feature version must be equal, and the names be features in their order; of wide events
    (`space` "vector") each stream has names of its own. Libraries may differ in their last number.
    """
    space = manifest.get("space", "series")
    if space not in ("series", "vector"):
        raise ArtefactIncompatible(
            f"the model was trained on {space!r}, which this Vigil does not know: upgrade Vigil, "
            "or start a training run"
        )
    present = FEATURE_VERSION if space == "series" else VECTOR_VERSION
    version, names = manifest.get("feature_version"), tuple(manifest.get("feature_names") or ())
    names_fit = len(names) > 0
    if space == "series":
        names_fit &= names == tuple(name for name in FEATURE_NAMES if name in names)
    if version != present or not names_fit:
        raise ArtefactIncompatible(
            f"the model was trained on features version {version}, this Vigil computes version "
            f"{present}: start a training run, or go back to the Vigil that trained it"
        )
    trained: Mapping[str, str] = manifest.get("libraries") or {}
    for name, installed in library_versions().items():
        if _release(trained.get(name, "")) != _release(installed):
            raise ArtefactIncompatible(
                f"the model was trained with {name} {trained.get(name, '(unknown)')}, {installed} "
                f"is installed: start a training run, or install the former version"
            )


def _header(payload: bytes) -> tuple[_Header, int]:
    if payload[:8] != MAGIC:
        raise ArtefactIncompatible("these bytes are no Vigil model: train one")
    start = 16 + int.from_bytes(payload[8:16], "little")
    raw = payload[16:start]
    try:
        version = msgspec.json.decode(raw, type=_Format).format
        if version != FORMAT_VERSION:
            raise ArtefactIncompatible(
                f"the model's format is {version}, this Vigil reads {FORMAT_VERSION}: "
                "start a training run, or upgrade Vigil"
            )
        return msgspec.json.decode(raw, type=_Header), start
    except msgspec.DecodeError as error:
        raise ArtefactCorrupt(f"the model's header can't be read: {error}") from error


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])
