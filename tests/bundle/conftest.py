"""A small sound bundle for the tests of this folder.

Takes nothing; gives the variants of `tests/runtime/sample.py` around bytes that stand for code.
Invariant: no compiler is needed: these tests never run what they store.
"""

from pathlib import Path

import pytest

from bundle_format import Digest, media
from bundle_format.weights import OWN_BLOB_BYTES, WeightData, pack_weights
from bundle_format.writer import Attachment, Layer, Variant, write_bundle
from tests.runtime.sample import WEIGHT_LAYERS, sample_config, sample_variant


@pytest.fixture
def variants() -> list[Variant]:
    """Two variants that share their weights."""
    return [sample_variant(b"code for v4", "x86-64-v4", ("avx512f",)), sample_variant(b"code for v3", "x86-64-v3")]


@pytest.fixture
def proof() -> Attachment:
    """A record that says something about one variant."""
    return Attachment(media.PROOF, b'{"max_error":1e-06}', "x86-64-v3")


@pytest.fixture
def bundle_file(tmp_path: Path, variants: list[Variant], proof: Attachment) -> Path:
    """The bundle as a tar."""
    path = tmp_path / "model.tessera"
    write_bundle(path, variants, [proof])
    return path


def large_variant() -> Variant:
    """A variant with two weights that each get a blob of their own, besides a shared one."""
    source = Digest.of(b"")
    sizes = (OWN_BLOB_BYTES + 64, OWN_BLOB_BYTES + 128)
    data = [WeightData(f"w{size}", bytes([size % 251]) * size, "u8", (size,), "dense", source) for size in sizes]
    weights, layers = pack_weights(data)
    config = sample_config("x86-64-v3", (), "x86_64")._replace(weights=weights)
    return Variant(config, [Layer(media.ELF_CODE, b"code"), *layers, *WEIGHT_LAYERS])
