"""Variants, weights and proofs become a bundle.

Takes: `Variant`s (a config and layers), `Attachment`s, a path.
Gives: a tar file or a folder, and the bundle's identity.
Invariant: the bytes are a function of the arguments' content: neither time, place, order of variants nor the number of
calls before leaves a trace.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle_format import media
from bundle_format.config_json import config_bytes
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.layout_files import Data, Layout, write_layout
from bundle_format.manifest import Descriptor, Manifest, index_bytes, manifest_bytes, referrer_bytes
from bundle_format.reader import Bundle, open_bundle
from bundle_format.schema import Config
from bundle_format.variant_checks import check_variant


@dataclass(frozen=True, slots=True)
class Layer:
    """Bytes of one media type. The bytes must not change until the bundle is written."""

    media_type: str
    data: Data
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Variant:
    """What runs on one target."""

    config: Config
    layers: Sequence[Layer]


@dataclass(frozen=True, slots=True)
class Attachment:
    """Something said about a variant (`target` is its name) or about the whole bundle (`target` None)."""

    media_type: str
    data: Data
    target: str | None = None


def write_bundle(
    path: str | os.PathLike[str],
    variants: Sequence[Variant],
    attachments: Sequence[Attachment] = (),
    *,
    directory: bool | None = None,
) -> Digest:
    """Write a bundle and return its identity.

    A folder is written when `directory` says so, or when it says nothing and the path ends in a slash or is a folder.
    """
    draft = _Draft()
    manifests = tuple(draft.add_variant(variant) for variant in sorted(variants, key=_target_name))
    if len({descriptor.annotations[media.TARGET_ANNOTATION] for descriptor in manifests}) != len(manifests):
        raise BundleError("VARIANT_DUPLICATE", "two variants are for the same target")
    if not manifests:
        raise BundleError("VARIANT_MISSING", "a bundle needs at least one variant")
    identity = draft.add_json(media.OCI_INDEX, index_bytes(manifests, media.BUNDLE))
    subjects: dict[str | None, Descriptor] = {None: identity}
    subjects |= {descriptor.annotations[media.TARGET_ANNOTATION]: descriptor for descriptor in manifests}
    for attachment in attachments:
        if attachment.target not in subjects:
            raise BundleError(
                "SUBJECT_UNKNOWN", "an attachment names a target without a variant", found=attachment.target
            )
        draft.add_referrer(attachment.media_type, attachment.data, subjects[attachment.target])
    write_layout(draft.finish(identity), Path(path), directory=_is_directory(path, directory))
    return identity.digest


def attach(path: str | os.PathLike[str], subject: Digest, media_type: str, data: Data) -> None:
    """Attach something to a bundle that is already written; its identity stays.

    The result has the bytes that `write_bundle` would have given with the same attachment.
    """
    with open_bundle(path) as bundle:
        draft = _Draft.of(bundle)
        subjects = {descriptor.digest: descriptor for descriptor in bundle.descriptors}
        if subject not in subjects:
            raise BundleError("SUBJECT_UNKNOWN", "nothing in the bundle has the subject's digest", found=str(subject))
        draft.add_referrer(media_type, data, subjects[subject])
        write_layout(draft.finish(bundle.descriptors[0]), Path(path), directory=_is_directory(path, None))


def copy_bundle(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, directory: bool | None = None
) -> Digest:
    """Write a bundle again, as a folder or as a tar, after checking all of it."""
    with open_bundle(source) as bundle:
        bundle.verify_full()
        layout = _Draft.of(bundle).finish(bundle.descriptors[0])
        write_layout(layout, Path(path), directory=_is_directory(path, directory))
        return bundle.identity


def _target_name(variant: Variant) -> str:
    return variant.config.target.name


def _is_directory(path: str | os.PathLike[str], directory: bool | None) -> bool:
    if directory is not None:
        return directory
    return os.fspath(path).endswith("/") or Path(path).is_dir()


class _Draft:
    """The blobs gathered so far, each once."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, Data] = {}
        self._aligned: set[Digest] = set()
        self._referrers: dict[Digest, Descriptor] = {}
        # Variants share weights as the same object; hashing 100 MB a second time costs a few hundred milliseconds. The
        # object stays with its digest: the next one could get the place, and the name, of one that is gone.
        self._hashed: dict[int, tuple[Digest, Data]] = {}

    @classmethod
    def of(cls, bundle: Bundle) -> "_Draft":
        """Everything that a bundle holds, each manifest and attachment compared with its digest."""
        draft = cls()
        for descriptor in bundle.reachable():
            draft._blobs[descriptor.digest] = bundle.map(descriptor)
            if descriptor.media_type == media.WEIGHTS:
                draft._aligned.add(descriptor.digest)
        for attachment in bundle.attachments:
            draft._referrers[attachment.manifest.digest] = attachment.manifest
        return draft

    def add_variant(self, variant: Variant) -> Descriptor:
        """The descriptor of the variant's manifest."""
        layers = tuple(self._add_layer(layer) for layer in variant.layers)
        manifest = Manifest(self.add_json(media.CONFIG, config_bytes(variant.config)), layers)
        check_variant(variant.config, manifest)
        annotations = {media.TARGET_ANNOTATION: variant.config.target.name}
        return self.add_json(media.OCI_MANIFEST, manifest_bytes(manifest), media.BUNDLE, annotations)

    def add_json(
        self,
        media_type: str,
        data: bytes,
        artifact_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """Keep a blob and describe it."""
        return Descriptor(media_type, self._keep(data), len(data), artifact_type, annotations or {})

    def add_referrer(self, media_type: str, data: Data, subject: Descriptor) -> None:
        """Keep an attachment, its manifest and OCI's empty config."""
        layer = Descriptor(media_type, self._keep(data), memoryview(data).nbytes)
        self._keep(b"{}")
        manifest = self.add_json(media.OCI_MANIFEST, referrer_bytes(media_type, layer, subject), media_type)
        self._referrers[manifest.digest] = manifest

    def finish(self, identity: Descriptor) -> Layout:
        """The layout, with an outer index that lists the bundle and, by digest, what is attached."""
        tagged = Descriptor(
            identity.media_type, identity.digest, identity.size, media.BUNDLE, {media.TAG_ANNOTATION: media.TAG}
        )
        referrers = (self._referrers[digest] for digest in sorted(self._referrers))
        return Layout(index_bytes((tagged, *referrers), None), self._blobs, frozenset(self._aligned))

    def _add_layer(self, layer: Layer) -> Descriptor:
        digest = self._keep(layer.data)
        if layer.media_type == media.WEIGHTS:
            self._aligned.add(digest)
        return Descriptor(layer.media_type, digest, memoryview(layer.data).nbytes, None, dict(layer.annotations))

    def _keep(self, data: Data) -> Digest:
        if id(data) not in self._hashed:
            digest = Digest.of(data)
            self._hashed[id(data)] = digest, data
            self._blobs.setdefault(digest, memoryview(data).cast("B"))
        return self._hashed[id(data)][0]
