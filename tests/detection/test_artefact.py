from __future__ import annotations

import hashlib

import numpy as np
import pytest

from detection import artefact
from detection.errors import ArtefactCorrupt, ArtefactIncompatible
from detection.features import FEATURE_NAMES, FEATURE_VERSION, VECTOR_VERSION

ARRAYS = {
    "b": np.arange(6, dtype=np.uint16).reshape(2, 3),
    "a": np.array([np.nan, -0.0, 1e300]),
    "empty": np.zeros((0, 4), np.float32),
    "scalar": np.array(3, dtype=np.int64),
}
MANIFEST = {"seed": 1, "detector": "isolation_forest"}


def test_arrays_and_manifest_come_back() -> None:
    arrays, manifest = artefact.load(*artefact.dump(ARRAYS, MANIFEST))
    assert manifest == MANIFEST
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
        assert not arrays[name].flags.writeable


def test_equal_content_gives_equal_bytes() -> None:
    turned = dict(reversed(ARRAYS.items())), dict(reversed(MANIFEST.items()))
    assert artefact.dump(ARRAYS, MANIFEST) == artefact.dump(*turned)


def test_any_flipped_byte_is_refused() -> None:
    payload, sha256 = artefact.dump(ARRAYS, MANIFEST)
    for at in range(len(payload)):
        flipped = bytearray(payload)
        flipped[at] ^= 1
        with pytest.raises(ArtefactCorrupt):
            artefact.load(bytes(flipped), sha256)


def test_objects_are_not_stored() -> None:
    with pytest.raises(TypeError):
        artefact.dump({"x": np.array([{}], dtype=object)}, {})


@pytest.mark.parametrize("payload", [b"", b"\x80\x04pickle", b"VIGILMDL\xff\xff\xff\xff{}"])
def test_foreign_bytes_are_refused_even_with_their_own_hash(payload: bytes) -> None:
    with pytest.raises((ArtefactCorrupt, ArtefactIncompatible)):
        artefact.load(payload, hashlib.sha256(payload).hexdigest())


def test_truncated_and_padded_payloads_are_refused_even_with_their_own_hash() -> None:
    payload, _ = artefact.dump(ARRAYS, MANIFEST)
    for wrong in (payload[:-1], payload + b"\0"):
        with pytest.raises(ArtefactCorrupt):
            artefact.load(wrong, hashlib.sha256(wrong).hexdigest())


def test_a_later_format_names_the_way_out() -> None:
    payload, _ = artefact.dump({}, {})
    later = payload.replace(b'"format":1', b'"format":9')
    with pytest.raises(ArtefactIncompatible, match="upgrade Vigil"):
        artefact.load(later, hashlib.sha256(later).hexdigest())


def test_other_features_or_libraries_name_the_way_out() -> None:
    good = {
        "feature_version": FEATURE_VERSION,
        "feature_names": list(FEATURE_NAMES),
        "libraries": artefact.library_versions(),
    }
    artefact.check_compatible(good)
    with pytest.raises(ArtefactIncompatible, match="training run"):
        artefact.check_compatible({**good, "feature_version": FEATURE_VERSION + 1})
    with pytest.raises(ArtefactIncompatible, match=r"scikit-learn 0\.1"):
        artefact.check_compatible(
            {**good, "libraries": {**artefact.library_versions(), "scikit-learn": "0.1.0"}}
        )


def test_the_space_decides_which_features_fit() -> None:
    libraries = artefact.library_versions()
    wide = {
        "space": "vector",
        "feature_version": VECTOR_VERSION,
        "feature_names": ["pressure", "flow"],
        "libraries": libraries,
    }
    artefact.check_compatible(wide)
    for wrong in (
        {**wide, "space": "series"},
        {**wide, "feature_version": VECTOR_VERSION + 1},
        {**wide, "feature_names": []},
    ):
        with pytest.raises(ArtefactIncompatible, match="training run"):
            artefact.check_compatible(wrong)
    with pytest.raises(ArtefactIncompatible, match="'graph'"):
        artefact.check_compatible({**wide, "space": "graph"})
