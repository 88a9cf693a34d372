"""Damaged and hostile bundles: each is refused with a code, or reads as the bundle it was."""

import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle_format import media
from bundle_format.canonical import canonical_bytes
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.layout_files import Layout, write_layout
from bundle_format.manifest import Descriptor, index_bytes
from bundle_format.reader import Bundle, open_bundle
from bundle_format.writer import Variant, copy_bundle, write_bundle
from tests.runtime.sample import sample_variant


def contents(bundle: Bundle) -> dict[Digest, bytes]:
    """Everything that a bundle holds, checked."""
    bundle.verify_full()
    return {blob.digest: bytes(bundle.read(blob)) for blob in bundle.reachable()}


def outcome(path: Path) -> tuple[Digest, dict[Digest, bytes]] | str:
    """What a reader gets: identity and contents, or the code of the refusal."""
    try:
        with open_bundle(path) as bundle:
            return bundle.identity, contents(bundle)
    except BundleError as error:
        return error.code if error.where else f"{error.code} without a place"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is never changed."""
    path = tmp_path_factory.mktemp("sound") / "model"
    write_bundle(path, [sample_variant(b"code" * 50)])
    return path


@pytest.mark.bundle
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_tar_when_one_bit_flips_then_is_refused_or_reads_the_same(
    sound: Path, tmp_path: Path, data: st.DataObject
) -> None:
    original = sound.read_bytes()
    # The long runs of padding would swallow most of the examples.
    interesting = st.integers(0, 9_000) | st.integers(0, len(original) - 1)
    position, bit = data.draw(interesting), data.draw(st.integers(0, 7))
    damaged = bytearray(original)
    damaged[position] ^= 1 << bit
    (tmp_path / "damaged").write_bytes(damaged)
    found = outcome(tmp_path / "damaged")
    assert isinstance(found, str) or found == outcome(sound)


@pytest.mark.bundle
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_tar_when_truncated_or_extended_then_is_refused(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = sound.read_bytes()
    length = data.draw(st.integers(0, len(original) - 1) | st.integers(0, 9_000))
    (tmp_path / "short").write_bytes(original[:length])
    assert isinstance(outcome(tmp_path / "short"), str)
    (tmp_path / "long").write_bytes(original + bytes(data.draw(st.integers(1, 2_000))))
    assert outcome(tmp_path / "long") == "TAR_TRUNCATED"


@pytest.mark.bundle
def test_tar_when_anything_follows_its_end_then_is_refused_without_reading_it(sound: Path, tmp_path: Path) -> None:
    long = tmp_path / "long"
    long.write_bytes(sound.read_bytes())
    os.truncate(long, 64 << 20)  # no bytes on the disk
    tracemalloc.start()
    assert outcome(long) == "TAR_TRUNCATED"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.bundle
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_folder_when_one_bit_flips_then_is_refused_or_reads_the_same(
    sound: Path, tmp_path: Path, data: st.DataObject
) -> None:
    copy_bundle(sound, tmp_path / "folder", directory=True)
    files = sorted(path for path in (tmp_path / "folder").rglob("*") if path.is_file())
    victim = data.draw(st.sampled_from(files))
    damaged = bytearray(victim.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    victim.write_bytes(damaged)
    found = outcome(tmp_path / "folder")
    assert isinstance(found, str) or found == outcome(sound)


@pytest.mark.bundle
def test_weights_when_damaged_then_only_a_full_check_notices(bundle_file: Path) -> None:
    data = bytearray(bundle_file.read_bytes())
    with open_bundle(bundle_file) as bundle:
        (layer,) = bundle.variants[0].layers(media.WEIGHTS)
        weights = bytes(bundle.weights(layer))
    data[data.index(weights)] ^= 1
    bundle_file.write_bytes(data)
    with open_bundle(bundle_file) as bundle:
        assert bytes(bundle.weights(layer)) != weights
        with pytest.raises(BundleError, match="BLOB_DAMAGED"):
            bundle.read(layer)
        with pytest.raises(BundleError, match="BLOB_DAMAGED"):
            bundle.verify_full()


@pytest.mark.errors
def test_bundle_when_another_was_asked_for_then_is_refused(bundle_file: Path) -> None:
    with pytest.raises(BundleError, match="IDENTITY_MISMATCH"):
        open_bundle(bundle_file, expected=Digest.of(b"another"))


@pytest.mark.errors
def test_bundle_when_path_holds_none_then_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    found = [outcome(tmp_path / name) for name in ("missing", "text", "empty", "folder", "pipe")]
    assert found == ["BUNDLE_NOT_FOUND", "TAR_TRUNCATED", "TAR_TRUNCATED", "BUNDLE_NOT_FOUND", "PATH_REFUSED"]


def tar_of(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar as other programs write it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.errors
@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "blobs/sha256/../../x", "blobs/sha256/" + "G" * 64, "INDEX.JSON"]
)
def test_tar_when_a_name_leads_elsewhere_then_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "m").write_bytes(tar_of([(name, b"x")]))
    assert outcome(tmp_path / "m") == "TAR_NAME"


@pytest.mark.errors
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE])
def test_tar_when_an_entry_is_not_a_plain_file_then_is_refused(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "m").write_bytes(tar_of([("index.json", b"")], kind))
    assert outcome(tmp_path / "m") == "TAR_HEADER"


@pytest.mark.errors
def test_tar_when_a_file_occurs_twice_then_is_refused(tmp_path: Path, bundle_file: Path) -> None:
    data = bundle_file.read_bytes()
    bundle_file.write_bytes(data[:1024] + data)  # the entry `oci-layout`, header and one block of data
    assert outcome(bundle_file) == "TAR_DUPLICATE"


@pytest.mark.errors
def test_tar_when_packed_by_another_program_then_opens_only_as_a_folder(tmp_path: Path, bundle_file: Path) -> None:
    with tarfile.open(bundle_file, "r:") as tar:
        tar.extractall(tmp_path / "folder", filter="data")
        members = [(member.name, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    (tmp_path / "other").write_bytes(tar_of(members))
    assert outcome(tmp_path / "other") in ("TAR_HEADER", "TAR_TRUNCATED")
    assert outcome(tmp_path / "folder") == outcome(bundle_file)


@pytest.mark.errors
def test_folder_when_a_blob_or_folder_is_a_link_then_is_refused(tmp_path: Path, bundle_file: Path) -> None:
    copy_bundle(bundle_file, tmp_path / "folder", directory=True)
    blobs = tmp_path / "folder" / "blobs" / "sha256"
    victim = sorted(blobs.iterdir())[0]
    victim.rename(tmp_path / "elsewhere")
    victim.symlink_to(tmp_path / "elsewhere")
    assert outcome(tmp_path / "folder") == "BUNDLE_UNREADABLE"
    victim.unlink()
    (tmp_path / "elsewhere").rename(victim)
    blobs.rename(tmp_path / "moved")
    blobs.symlink_to(tmp_path / "moved")
    assert outcome(tmp_path / "folder") == "PATH_REFUSED"


@pytest.mark.errors
def test_folder_when_a_blob_is_missing_or_stray_then_is_refused(tmp_path: Path, bundle_file: Path) -> None:
    copy_bundle(bundle_file, tmp_path / "folder", directory=True)
    blobs = tmp_path / "folder" / "blobs" / "sha256"
    stray = blobs / Digest.of(b"stray").hex
    stray.write_bytes(b"stray")
    assert outcome(tmp_path / "folder") == "BLOB_STRAY"
    stray.unlink()
    sorted(blobs.iterdir())[0].unlink()
    assert outcome(tmp_path / "folder") == "BLOB_MISSING"


def forged(path: Path, variants: list[Variant], change: Callable[[dict[str, object]], object], depth: int) -> None:
    """A bundle with a changed identity index (depth 0) or manifest (depth 1), all digests made right again."""
    write_bundle(path, variants[:1])
    with open_bundle(path) as bundle:
        blobs = {blob.digest: bytes(bundle.map(blob)) for blob in bundle.reachable()}
        index, manifest = bundle.descriptors
    tree = json.loads(blobs[manifest.digest if depth else index.digest])
    change(tree)
    data = canonical_bytes(tree)
    if depth:
        blobs[Digest.of(data)] = data
        outer = json.loads(blobs[index.digest])
        outer["manifests"][0] |= {"digest": str(Digest.of(data)), "size": len(data)}
        data = canonical_bytes(outer)
    blobs[Digest.of(data)] = data
    identity = Descriptor(media.OCI_INDEX, Digest.of(data), len(data))
    weights = {Digest.of(layer.data) for layer in variants[0].layers if layer.media_type == media.WEIGHTS}
    write_layout(Layout(index_bytes((identity,), None), blobs, frozenset(weights)), path, directory=False)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("code", "depth", "change"),
    [
        ("FIELD_UNKNOWN", 0, lambda tree: tree.update(extra=1)),
        ("FIELD_UNKNOWN", 1, lambda tree: tree.update(extra=1)),
        ("FIELD_UNKNOWN", 1, lambda tree: tree["config"].update(data="e30=")),
        ("FIELD_UNSUPPORTED", 0, lambda tree: tree.update(schemaVersion=1)),
        ("FIELD_UNSUPPORTED", 1, lambda tree: tree.update(artifactType="text/plain")),
        ("VARIANT_COUNT", 0, lambda tree: tree.update(manifests=[])),
        ("VARIANT_DUPLICATE", 0, lambda tree: tree["manifests"].append(tree["manifests"][0])),
        ("TARGET_MISMATCH", 0, lambda tree: tree["manifests"][0]["annotations"].update({"dev.tessera.target": "b"})),
        ("BLOB_SIZE", 0, lambda tree: tree["manifests"][0].update(size=1)),
        ("BLOB_SIZE", 1, lambda tree: tree["config"].update(size=2**62)),
        ("FIELD_TYPE", 1, lambda tree: tree["config"].update(size=2**70)),
        ("BLOB_MISSING", 1, lambda tree: tree["config"].update(digest="sha256:" + "0" * 64)),
        ("DIGEST_MALFORMED", 1, lambda tree: tree["layers"][0].update(digest="sha256:../../../etc/passwd")),
        ("MEDIA_TYPE", 1, lambda tree: tree["layers"][0].update(mediaType="text/plain")),
        ("MEDIA_TYPE", 1, lambda tree: tree["config"].update(mediaType="text/plain")),
        ("CODE_MISSING", 1, lambda tree: tree["layers"].append(tree["layers"][0])),
        ("LAYER_COUNT", 1, lambda tree: tree.update(layers=tree["layers"] * 5_000)),
        ("WEIGHT_OUTSIDE", 1, lambda tree: tree["layers"].pop()),
    ],
)
def test_bundle_when_forged_with_right_digests_then_is_refused(
    tmp_path: Path, variants: list[Variant], code: str, depth: int, change: Callable[[dict[str, object]], object]
) -> None:
    forged(tmp_path / "m", variants, change, depth)
    assert outcome(tmp_path / "m") == code


@pytest.mark.errors
def test_tar_when_weights_are_not_aligned_then_they_are_refused(tmp_path: Path, variants: list[Variant]) -> None:
    write_bundle(tmp_path / "m", variants)
    with open_bundle(tmp_path / "m") as bundle:
        blobs = {blob.digest: bytes(bundle.map(blob)) for blob in bundle.reachable()}
        write_layout(
            Layout(index_bytes(bundle.descriptors[:1], None), blobs, frozenset()), tmp_path / "n", directory=False
        )
    with open_bundle(tmp_path / "n") as bundle:
        (layer,) = bundle.variants[0].layers(media.WEIGHTS)
        with pytest.raises(BundleError, match="WEIGHT_MISALIGNED"):
            bundle.weights(layer)
