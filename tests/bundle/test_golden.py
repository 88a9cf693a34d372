"""Bundles of released format versions: this reader opens them, and this writer still writes the newest byte for byte.

Each file of `golden` was written once by the writer of its format and is never written again; a change of the format
adds a file beside it. That of 1.1 has outputs whose shapes depend on data, that of 1.2 results that are no tensors.
"""

from pathlib import Path

import pytest

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.dims import parse_dim
from bundle_format.packed_text import unpack_text
from bundle_format.reader import open_bundle
from bundle_format.schema import DataSize, Result, Target
from bundle_format.writer import Attachment, Layer, Variant, write_bundle

FOLDER = Path(__file__).parent / "golden"
IDENTITIES = {
    "1.0": Digest.parse("sha256:f55a4973817cb7f2356d3a0b8fe7c62ee28a018348f31fa10922eaad5eb26207"),
    "1.1": Digest.parse("sha256:9390992468605e09dbaf8214858f1573dbfcc4d2cc6b3469e19e485ea4757396"),
    "1.2": Digest.parse("sha256:40b87af82e4dc4a524d09d96dbd3f69229f23b6bc98c2b4b3c6b6f3919cc8cd6"),
}
GRAPH_TEXT = '"builtin.module"() ({}) : () -> ()\n'


@pytest.mark.golden
@pytest.mark.parametrize("version", IDENTITIES)
def test_golden_bundle_when_opened_then_holds_what_was_put_in(version: str) -> None:
    with open_bundle(FOLDER / f"{version}.tessera", expected=IDENTITIES[version]) as bundle:
        bundle.verify_full()
        (variant,) = bundle.variants
        assert variant.config.target == Target("x86-64-v3", "cpu", "x86_64", ("avx2", "fma"))
        assert [entry.name for entry in variant.config.entries][:4] == ["main", "step", "spin", "bits"]
        assert [(weight.offset, weight.bytes) for weight in variant.config.weights] == [(0, 12), (64, 12)]
        (graph,) = variant.layers(media.GRAPH_IR)
        assert unpack_text(bundle.read(graph)) == GRAPH_TEXT
        (code,) = variant.layers(media.ELF_CODE)
        assert bytes(bundle.read(code)) == b"code"
        (proof,) = bundle.attachments
        assert bytes(bundle.read(proof.blobs[0])) == b'{"max_error":0.0}'


@pytest.mark.golden
def test_golden_bundle_when_outputs_depend_on_data_then_names_the_sizes() -> None:
    with open_bundle(FOLDER / "1.1.tessera") as bundle:
        main = bundle.variants[0].config.entries[0]
        assert main.sizes == (DataSize("found", parse_dim("N")), DataSize("open"))
        assert [main.outputs[index].name for index in main.dynamic_outputs] == ["kept", "twice"]


@pytest.mark.golden
def test_golden_bundle_when_results_are_no_tensors_then_says_what_they_are_made_of() -> None:
    with open_bundle(FOLDER / "1.2.tessera") as bundle:
        config = bundle.variants[0].config
        assert config.ignorable == ("results",)
        assert config.entries[0].results == (
            Result("scores", "integer_maps", ("y",), ("-4", "7", "30")),
            Result("label", "words", ("last",), ("setosa", "Ünlü")),
            Result("rows", "sequence", ("kept",)),
            Result("absent", "nothing", ()),
            Result("twice", "tensor", ("twice",)),
        )


@pytest.mark.golden
@pytest.mark.parametrize("version", IDENTITIES)
def test_golden_bundle_when_its_parts_are_written_again_then_bytes_are_equal(tmp_path: Path, version: str) -> None:
    with open_bundle(FOLDER / f"{version}.tessera") as bundle:
        (variant,) = bundle.variants
        layers = [Layer(layer.media_type, bundle.read(layer)) for layer in variant.manifest.layers]
        attachment = Attachment(media.PROOF, b'{"max_error":0.0}', "x86-64-v3")
        assert write_bundle(tmp_path / "again", [Variant(variant.config, layers)], [attachment]) == IDENTITIES[version]
    assert (tmp_path / "again").read_bytes() == (FOLDER / f"{version}.tessera").read_bytes()
