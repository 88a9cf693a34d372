"""Bundles of released format versions: this reader opens them, and this writer still writes the newest byte for byte.

`golden/1.0.tessera` was written once by the writer of format 1.0 and is never written again; a change of the format
adds a file beside it.
"""

from pathlib import Path

import pytest

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.packed_text import unpack_text
from bundle_format.reader import open_bundle
from bundle_format.schema import Target
from bundle_format.writer import Attachment, Layer, Variant, write_bundle

GOLDEN = Path(__file__).parent / "golden" / "1.0.tessera"
IDENTITY = Digest.parse("sha256:f55a4973817cb7f2356d3a0b8fe7c62ee28a018348f31fa10922eaad5eb26207")
GRAPH_TEXT = '"builtin.module"() ({}) : () -> ()\n'


@pytest.mark.golden
def test_golden_bundle_when_opened_then_holds_what_was_put_in() -> None:
    with open_bundle(GOLDEN, expected=IDENTITY) as bundle:
        bundle.verify_full()
        (variant,) = bundle.variants
        assert variant.config.target == Target("x86-64-v3", "cpu", "x86_64", ("avx2", "fma"))
        assert [entry.name for entry in variant.config.entries] == ["main", "step", "spin", "bits"]
        assert [(weight.offset, weight.bytes) for weight in variant.config.weights] == [(0, 12), (64, 12)]
        (graph,) = variant.layers(media.GRAPH_IR)
        assert unpack_text(bundle.read(graph)) == GRAPH_TEXT
        (code,) = variant.layers(media.ELF_CODE)
        assert bytes(bundle.read(code)) == b"code"
        (proof,) = bundle.attachments
        assert bytes(bundle.read(proof.blobs[0])) == b'{"max_error":0.0}'


@pytest.mark.golden
def test_golden_bundle_when_its_parts_are_written_again_then_bytes_are_equal(tmp_path: Path) -> None:
    with open_bundle(GOLDEN) as bundle:
        (variant,) = bundle.variants
        layers = [Layer(layer.media_type, bundle.read(layer)) for layer in variant.manifest.layers]
        attachment = Attachment(media.PROOF, b'{"max_error":0.0}', "x86-64-v3")
        assert write_bundle(tmp_path / "again", [Variant(variant.config, layers)], [attachment]) == IDENTITY
    assert (tmp_path / "again").read_bytes() == GOLDEN.read_bytes()
