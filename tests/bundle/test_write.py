"""Writing: equal content gives equal bytes, in a form that other tools read, all of it or nothing."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bundle_format import layout_files, media
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.packed_text import pack_text, unpack_text
from bundle_format.reader import open_bundle
from bundle_format.schema import WEIGHT_ALIGNMENT
from bundle_format.tar_layout import ALIGNMENT, BLOCK, MAX_OCTAL_SIZE, entry_header, pax_size, place
from bundle_format.weights import WeightData, pack_weights
from bundle_format.writer import Attachment, Layer, Variant, attach, copy_bundle, write_bundle
from tests.bundle.conftest import large_variant


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.bundle
def test_bundle_when_written_twice_then_bytes_are_equal(
    tmp_path: Path, variants: list[Variant], proof: Attachment
) -> None:
    first = write_bundle(tmp_path / "a", variants, [proof])
    second = write_bundle(tmp_path / "b", variants[::-1], [proof])
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.bundle
def test_bundle_when_written_under_another_hash_seed_and_locale_then_bytes_are_equal(tmp_path: Path) -> None:
    program = (
        "import sys; from bundle_format.writer import write_bundle; from tests.runtime.sample import sample_variant\n"
        "print(write_bundle(sys.argv[1], [sample_variant(b'code', name) for name in ('b', 'a')]))"
    )
    files = [tmp_path / "a", tmp_path / "b"]
    for file, seed, locale in zip(files, "12", ("C", "C.UTF-8"), strict=True):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": f"UTC+{seed}"}
        subprocess.run([sys.executable, "-c", program, str(file)], env=environment, check=True, stdout=subprocess.PIPE)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.bundle
def test_identity_when_proofs_are_attached_then_stays(
    tmp_path: Path, variants: list[Variant], proof: Attachment
) -> None:
    plain = write_bundle(tmp_path / "plain", variants)
    assert write_bundle(tmp_path / "proved", variants, [proof]) == plain
    with open_bundle(tmp_path / "plain") as bundle:
        subject = next(v.descriptor.digest for v in bundle.variants if v.config.target.name == proof.target)
    attach(tmp_path / "plain", subject, proof.media_type, proof.data)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "proved").read_bytes()


@pytest.mark.bundle
def test_attachment_when_read_then_has_subject_type_and_bytes(bundle_file: Path, proof: Attachment) -> None:
    with open_bundle(bundle_file) as bundle:
        (record,) = bundle.attachments
        (variant,) = (v for v in bundle.variants if v.descriptor.digest == record.subject)
        assert variant.config.target.name == proof.target
        assert record.artifact_type == media.PROOF
        assert bytes(bundle.read(record.blobs[0])) == proof.data


@pytest.mark.errors
def test_attachment_when_subject_is_unknown_then_is_refused(bundle_file: Path, variants: list[Variant]) -> None:
    before = bundle_file.read_bytes()
    with pytest.raises(BundleError, match="SUBJECT_UNKNOWN"):
        attach(bundle_file, Digest.of(b"other"), media.PROOF, b"{}")
    with pytest.raises(BundleError, match="SUBJECT_UNKNOWN"):
        write_bundle(bundle_file, variants, [Attachment(media.PROOF, b"{}", "x86-64-v9")])
    assert bundle_file.read_bytes() == before


@pytest.mark.bundle
def test_attachments_when_some_are_equal_then_the_others_are_all_there(tmp_path: Path, variants: list[Variant]) -> None:
    said = [b"same", b"same", *(b"other %d" % number for number in range(10, 20))]
    write_bundle(tmp_path / "m", variants, [Attachment("application/x", data) for data in said])
    with open_bundle(tmp_path / "m") as bundle:
        bundle.verify_full()
        found = {bytes(bundle.read(blob)) for record in bundle.attachments for blob in record.blobs}
    assert found == {*said, b"{}"}


@pytest.mark.bundle
def test_tar_when_read_by_tarfile_then_is_an_oci_image_layout(bundle_file: Path) -> None:
    with tarfile.open(bundle_file, "r:") as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
        times = {(member.mtime, member.uid, member.mode, member.uname) for member in tar.getmembers()}
    assert times == {(0, 0, 0o644, "")}
    assert json.loads(contents["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    for name, data in contents.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    outer = json.loads(contents["index.json"])
    identity, referrer = outer["manifests"]
    assert identity["annotations"] == {"org.opencontainers.image.ref.name": "bundle"}
    index = json.loads(contents["blobs/sha256/" + identity["digest"].removeprefix("sha256:")])
    assert [entry["annotations"]["dev.tessera.target"] for entry in index["manifests"]] == ["x86-64-v3", "x86-64-v4"]
    for entry in index["manifests"]:
        manifest = json.loads(contents["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])
        assert manifest["schemaVersion"] == 2
        assert manifest["artifactType"] == media.BUNDLE
        assert manifest["config"]["mediaType"] == media.CONFIG
    attached = json.loads(contents["blobs/sha256/" + referrer["digest"].removeprefix("sha256:")])
    assert attached["subject"]["digest"] == index["manifests"][0]["digest"]


@pytest.mark.bundle
def test_weights_when_in_a_tar_then_begin_at_64_kib_and_are_stored_once(tmp_path: Path) -> None:
    other = large_variant()
    other = Variant(other.config._replace(target=other.config.target._replace(name="other")), other.layers)
    write_bundle(tmp_path / "m", [large_variant(), other])
    with tarfile.open(tmp_path / "m", "r:") as tar:
        aligned = [member for member in tar.getmembers() if member.pax_headers]
        assert len(aligned) >= 2
        assert all(member.offset_data % ALIGNMENT == 0 for member in aligned)
        names = tar.getnames()
    assert len(names) == len(set(names))
    digests = {layer.digest for layer in open_bundle(tmp_path / "m").variants[0].layers(media.WEIGHTS)}
    assert len(digests) == 3
    assert (tmp_path / "m").stat().st_size < 2 * (2 << 20)


@pytest.mark.bundle
def test_copy_when_made_as_folder_and_back_then_bytes_are_equal(bundle_file: Path, tmp_path: Path) -> None:
    identity = copy_bundle(bundle_file, tmp_path / "folder", directory=True)
    assert (tmp_path / "folder" / "index.json").is_file()
    assert copy_bundle(tmp_path / "folder", tmp_path / "again") == identity
    assert (tmp_path / "again").read_bytes() == bundle_file.read_bytes()


@pytest.mark.bundle
def test_folder_when_it_holds_a_bundle_then_is_replaced(tmp_path: Path, variants: list[Variant]) -> None:
    write_bundle(f"{tmp_path}/m/", variants)
    identity = write_bundle(tmp_path / "m", variants[:1])
    assert open_bundle(tmp_path / "m").identity == identity
    assert names(tmp_path) == ["m"]


@pytest.mark.errors
def test_folder_when_it_holds_other_work_then_stays(tmp_path: Path, variants: list[Variant]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("precious")
    with pytest.raises(BundleError, match="TARGET_EXISTS"):
        write_bundle(tmp_path / "notes", variants)
    with pytest.raises(BundleError, match="TARGET_EXISTS"):
        write_bundle(tmp_path / "notes", variants, directory=False)
    assert (tmp_path / "notes" / "text").read_text() == "precious"
    assert names(tmp_path) == ["notes"]


@pytest.mark.errors
@pytest.mark.parametrize("directory", [False, True])
@pytest.mark.parametrize("writes_before", [0, 1, 7])
def test_write_when_the_disk_is_full_then_leaves_what_was_there(
    tmp_path: Path, variants: list[Variant], monkeypatch: pytest.MonkeyPatch, directory: bool, writes_before: int
) -> None:
    path = tmp_path / "model"
    before = write_bundle(path, variants[:1], directory=directory)
    real, left = os.write, [writes_before]

    def full(descriptor: int, data: memoryview) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:100])  # a disk that is nearly full takes less than it is given

    monkeypatch.setattr(layout_files.os, "write", full)
    with pytest.raises(BundleError, match="DISK_FULL"):
        write_bundle(path, variants, directory=directory)
    monkeypatch.undo()
    assert names(tmp_path) == ["model"]
    with open_bundle(path, expected=before) as bundle:
        bundle.verify_full()


@pytest.mark.errors
def test_write_when_interrupted_then_leaves_nothing(
    tmp_path: Path, variants: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layout_files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "model", variants)
    assert names(tmp_path) == []


@pytest.mark.errors
def test_write_when_the_folder_is_missing_then_says_so(tmp_path: Path, variants: list[Variant]) -> None:
    with pytest.raises(BundleError, match="BUNDLE_UNWRITABLE"):
        write_bundle(tmp_path / "missing" / "model", variants)


@pytest.mark.errors
def test_write_when_variants_do_not_fit_together_then_is_refused(tmp_path: Path, variants: list[Variant]) -> None:
    path, first = tmp_path / "model", variants[0]
    without_code = Variant(first.config, [layer for layer in first.layers if layer.media_type != media.ELF_CODE])
    without_weights = Variant(first.config, [Layer(media.ELF_CODE, b"")])
    strange = Variant(first.config, [*first.layers, Layer("text/plain", b"hello")])
    for code, given in (
        ("VARIANT_DUPLICATE", [first, first]),
        ("VARIANT_MISSING", []),
        ("CODE_MISSING", [without_code]),
        ("WEIGHT_OUTSIDE", [without_weights]),
        ("MEDIA_TYPE", [strange]),
    ):
        with pytest.raises(BundleError, match=code):
            write_bundle(path, given)
    assert not path.exists()


@pytest.mark.unit
def test_weights_when_packed_then_small_ones_share_a_blob_and_equal_ones_a_place() -> None:
    source = Digest.of(b"")
    small = [
        WeightData(name, data, "u8", (len(data),), "dense", source)
        for name, data in (("a", b"1"), ("b", b"22"), ("c", b"1"))
    ]
    weights, (layer,) = pack_weights(small)
    assert [weight.name for weight in weights] == ["a", "b", "c"]
    assert weights[0].offset == weights[2].offset != weights[1].offset
    assert all(weight.offset % WEIGHT_ALIGNMENT == 0 for weight in weights)
    for weight, given in zip(weights, small, strict=True):
        assert bytes(layer.data[weight.offset : weight.offset + weight.bytes]) == given.data


@pytest.mark.unit
def test_weights_when_all_are_empty_then_lie_within_a_layer() -> None:
    weights, (layer,) = pack_weights([WeightData("a", b"", "f32", (0, 3), "dense", Digest.of(b""))])
    assert weights[0].digest == Digest.of(layer.data)
    assert weights[0].bytes == 0 < len(layer.data)


@pytest.mark.unit
def test_text_when_packed_then_unpacks_to_itself_and_twice_to_equal_bytes() -> None:
    text = "func @main(%0: tensor<?x3xf32>) ü\n" * 1000
    assert unpack_text(pack_text(text)) == text
    assert pack_text(text) == pack_text(text)
    assert len(pack_text(text)) < 200


@pytest.mark.errors
def test_text_when_damaged_or_too_large_then_is_refused() -> None:
    data = pack_text("x" * 10_000)
    for damaged in (b"", data[:-1], data + b"\0", b"\0" * 40):
        with pytest.raises(BundleError, match="TEXT_"):
            unpack_text(damaged)
    with pytest.raises(BundleError, match="TEXT_OVERSIZE"):
        unpack_text(data, limit_bytes=9_999)


@pytest.mark.unit
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [0, 1, MAX_OCTAL_SIZE, MAX_OCTAL_SIZE + 1, 1 << 40])
def test_tar_entry_when_placed_anywhere_then_tarfile_finds_size_and_data(aligned: bool, size: int) -> None:
    for position in range(0, 2 * ALIGNMENT, 31 * BLOCK):
        entry = place("blobs/sha256/" + "0" * 64, size, position, aligned)
        assert not aligned or entry.offset % ALIGNMENT == 0
        assert entry.offset - position == len(entry.header) <= ALIGNMENT + 3 * BLOCK
        pax_bytes = len(entry.header) - 2 * BLOCK if len(entry.header) > BLOCK else 0
        assert entry_header(entry.name, size, pax_bytes) == entry.header
        if size > MAX_OCTAL_SIZE:
            assert pax_size(entry.header[BLOCK:]) == size
        info = tarfile.TarInfo.frombuf(entry.header[-BLOCK:], "ascii", "strict")
        assert info.name == entry.name
