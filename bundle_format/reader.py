"""A bundle opened for reading, strictly and lazily.

Takes: the path of a tar file or a folder.
Gives: `Bundle`: its identity, its variants, its attachments and the bytes of its blobs.
Invariant: opening checks the digests of the identity index, of every manifest and of every config; `read` and `copy`
check a blob before they return it; only `map` hands out bytes that nobody has compared with their digest.
"""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple, Self, final

from bundle_format import media
from bundle_format.canonical import parse_json
from bundle_format.config_json import parse_config
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.fields import Fields, add_step
from bundle_format.manifest import (
    Descriptor,
    Manifest,
    parse_identity_index,
    parse_manifest,
    parse_outer_index,
    parse_referrer,
)
from bundle_format.schema import Config
from bundle_format.store import Store, open_store
from bundle_format.variant_checks import check_variant

MAX_VARIANTS: Final = 1_000
MAX_LAYERS: Final = 10_000


class VariantRecord(NamedTuple):
    """One variant of an open bundle."""

    descriptor: Descriptor
    manifest: Manifest
    config: Config

    def layers(self, media_type: str) -> tuple[Descriptor, ...]:
        """The layers of one media type, in the order of the writer."""
        return tuple(layer for layer in self.manifest.layers if layer.media_type == media_type)


class AttachmentRecord(NamedTuple):
    """Something attached to the bundle (`subject` is its identity) or to a variant; the config is the last blob."""

    manifest: Descriptor
    subject: Digest
    artifact_type: str
    blobs: tuple[Descriptor, ...]


@final
class Bundle:
    """An open bundle. Views that it handed out stay valid after `close`."""

    def __init__(self, store: Store, expected: Digest | None) -> None:
        self._store = store
        self._checked: set[Digest] = set()
        _check_layout_file(store.view(media.LAYOUT_FILE))
        self._outer = parse_outer_index(store.view(media.INDEX_FILE))
        identity = _find_identity(self._outer, expected)
        index = self.copy(identity)
        manifests = parse_identity_index(index, f"index {identity.digest}")
        if not 0 < len(manifests) <= MAX_VARIANTS:
            raise BundleError("VARIANT_COUNT", "a bundle holds no variant, or too many", found=str(len(manifests)))
        self.identity: Final[Digest] = identity.digest
        self.descriptors: Final[tuple[Descriptor, ...]] = (identity, *manifests)
        self.variants: Final[tuple[VariantRecord, ...]] = tuple(self._variant(manifest) for manifest in manifests)
        if len({variant.config.target.name for variant in self.variants}) != len(self.variants):
            raise BundleError("VARIANT_DUPLICATE", "two variants are for the same target")

    @property
    def path(self) -> str:
        """Where the bundle lies."""
        return self._store.path

    @property
    def attachments(self) -> tuple[AttachmentRecord, ...]:
        """What is attached to the bundle and its variants, each manifest compared with its digest."""
        subjects = {descriptor.digest for descriptor in self.descriptors}
        found: list[AttachmentRecord] = []
        for descriptor in self._outer:
            if descriptor.media_type == media.OCI_MANIFEST and descriptor.digest not in subjects:
                referrer = parse_referrer(self.read(descriptor), f"manifest {descriptor.digest}")
                if referrer is not None and referrer.subject in subjects:
                    kind, blobs = referrer.artifact_type, (*referrer.layers, referrer.config)
                    found.append(AttachmentRecord(descriptor, referrer.subject, kind, blobs))
        return tuple(found)

    def map(self, blob: Descriptor) -> memoryview:
        """The bytes of a blob as they lie in the file; only their number has been checked."""
        view = self._store.blob(blob.digest)
        if len(view) != blob.size:
            raise BundleError(
                "BLOB_SIZE",
                "a blob has another size than its descriptor says",
                where=f"{self._store.path}: {blob.digest}",
                expected=f"{blob.size} bytes",
                found=f"{len(view)} bytes",
            )
        return view

    def read(self, blob: Descriptor) -> memoryview:
        """The bytes of a blob, compared with its digest (once for each open bundle)."""
        view = self.map(blob)
        if blob.digest not in self._checked:
            self._compare(view, blob)
            self._checked.add(blob.digest)
        return view

    def copy(self, blob: Descriptor) -> bytes:
        """A private copy of a blob, compared with its digest: what was checked stays what is used, whoever may write
        into the file meanwhile. For what a loader trusts with its memory: manifests, configs and code.
        """
        data = bytes(self.map(blob))
        self._compare(data, blob)
        return data

    def weights(self, blob: Descriptor) -> memoryview:
        """The bytes of a weights layer, mapped, not compared with their digest; aligned to whole pages."""
        if not self._store.is_aligned(blob.digest):
            raise BundleError("WEIGHT_MISALIGNED", "a weights blob is not aligned to 64 KiB", found=str(blob.digest))
        return self.map(blob)

    def verify_full(self) -> None:
        """Compare every blob with its digest, and refuse blobs that nothing refers to."""
        reached: set[Digest] = set()
        for descriptor in self.reachable():
            self.read(descriptor)
            reached.add(descriptor.digest)
        stray = [digest for digest in self._store.blobs() if digest not in reached]
        if stray:
            raise BundleError(
                "BLOB_STRAY",
                "the bundle holds a blob that nothing refers to",
                where=self.path,
                found=str(stray[0]),
            )

    def reachable(self) -> Iterator[Descriptor]:
        """Every blob that the bundle and its attachments refer to; some more than once."""
        yield from self.descriptors
        for variant in self.variants:
            yield variant.manifest.config
            yield from variant.manifest.layers
        for attachment in self.attachments:
            yield attachment.manifest
            yield from attachment.blobs

    def close(self) -> None:
        """Let go of the file. Its memory is unmapped when the last view of it is gone."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compare(self, data: bytes | memoryview, blob: Descriptor) -> None:
        found = Digest.of(data)
        if found != blob.digest:
            raise BundleError(
                "BLOB_DAMAGED",
                f"a blob ({blob.media_type}) does not have the digest that names it",
                where=self._store.path,
                expected=str(blob.digest),
                found=str(found),
                hint="the file was damaged or changed after it was built; fetch or build it again",
            )

    def _variant(self, descriptor: Descriptor) -> VariantRecord:
        if descriptor.media_type != media.OCI_MANIFEST or descriptor.artifact_type != media.BUNDLE:
            raise BundleError(
                "MEDIA_TYPE", "the bundle lists something that is not a variant", found=descriptor.media_type
            )
        manifest = parse_manifest(self.copy(descriptor), f"manifest {descriptor.digest}")
        if len(manifest.layers) > MAX_LAYERS:
            raise BundleError("LAYER_COUNT", "a variant has too many layers", expected=f"at most {MAX_LAYERS}")
        try:
            config = parse_config(self.copy(manifest.config))
            check_variant(config, manifest)
        except BundleError as error:
            raise add_step(error, f"config {manifest.config.digest}: ") from None
        if descriptor.annotations != {media.TARGET_ANNOTATION: config.target.name}:
            raise BundleError(
                "TARGET_MISMATCH", "the index names another target than the config", found=config.target.name
            )
        return VariantRecord(descriptor, manifest, config)


def open_bundle(path: str | os.PathLike[str], *, expected: Digest | None = None) -> Bundle:
    """Open a bundle; `expected` is the identity that it must have, when the caller knows it."""
    store = open_store(os.fspath(path))
    try:
        return Bundle(store, expected)
    except BundleError as error:
        error.where = error.where or str(path)
        raise


def _check_layout_file(data: memoryview) -> None:
    try:
        Fields(parse_json(data)).exactly("imageLayoutVersion", "1.0.0")
    except BundleError as error:
        raise add_step(error, media.LAYOUT_FILE) from None


def _find_identity(outer: tuple[Descriptor, ...], expected: Digest | None) -> Descriptor:
    """The one image index that the layout lists (manifests beside it are attachments)."""
    found = [descriptor for descriptor in outer if descriptor.media_type == media.OCI_INDEX]
    if len(found) != 1:
        raise BundleError("IDENTITY_UNCLEAR", "the layout does not list exactly one bundle", found=str(len(found)))
    if expected is not None and found[0].digest != expected:
        raise BundleError(
            "IDENTITY_MISMATCH",
            "this is another bundle than the one asked for",
            expected=str(expected),
            found=str(found[0].digest),
        )
    return found[0]
