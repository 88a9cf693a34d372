"""The OCI records of a bundle: descriptors, the identity index, variant manifests and referrers.

Takes: records, or the bytes of such blobs.
Gives: canonical bytes, or records.
Invariant: what identifies the bundle (index, variant manifests) is read strictly; what other tools may write (the outer
index, referrers) is read by the rules of OCI, which let unknown fields pass.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from bundle_format import media
from bundle_format.canonical import Json, canonical_bytes, parse_canonical, parse_json
from bundle_format.digest import Digest
from bundle_format.errors import BundleError
from bundle_format.fields import Fields, add_step, as_digest, as_integer, as_mapping, as_text

_NO_ANNOTATIONS: Final[Mapping[str, str]] = MappingProxyType({})


class Descriptor(NamedTuple):
    """A reference to a blob: what it is, its digest and its size in bytes."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] = _NO_ANNOTATIONS

    def to_json(self) -> dict[str, Json]:
        """The OCI form; absent members are left out."""
        result: dict[str, Json] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type is not None:
            result["artifactType"] = self.artifact_type
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        return result


class Manifest(NamedTuple):
    """One variant: its config and its layers, in the order of the writer."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Referrer(NamedTuple):
    """Something attached to `subject`, from a manifest that names it."""

    subject: Digest
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


def manifest_bytes(manifest: Manifest) -> bytes:
    """The blob of a variant manifest."""
    return canonical_bytes(_manifest_json(media.BUNDLE, manifest.config, manifest.layers))


def referrer_bytes(artifact_type: str, layer: Descriptor, subject: Descriptor) -> bytes:
    """The blob of a manifest that attaches one layer to a subject; its config is OCI's empty object."""
    empty = Descriptor(media.OCI_EMPTY, Digest.of(b"{}"), 2)
    content = _manifest_json(artifact_type, empty, (layer,))
    content["subject"] = Descriptor(subject.media_type, subject.digest, subject.size).to_json()
    return canonical_bytes(content)


def index_bytes(manifests: tuple[Descriptor, ...], artifact_type: str | None) -> bytes:
    """An OCI image index: the identity index when it has the bundle's artifact type, else the outer one."""
    content: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [descriptor.to_json() for descriptor in manifests],
    }
    if artifact_type is not None:
        content["artifactType"] = artifact_type
    return canonical_bytes(content)


def parse_manifest(data: bytes | memoryview, where: str) -> Manifest:
    """Read a variant manifest, strictly."""
    try:
        fields = Fields(parse_canonical(data))
        _expect_kind(fields, media.OCI_MANIFEST)
        manifest = Manifest(fields.read("config", _descriptor), fields.sequence("layers", _descriptor))
        fields.close()
    except BundleError as error:
        raise add_step(error, where) from None
    return manifest


def parse_identity_index(data: bytes | memoryview, where: str) -> tuple[Descriptor, ...]:
    """Read the index whose digest is the bundle's identity, strictly."""
    try:
        fields = Fields(parse_canonical(data))
        _expect_kind(fields, media.OCI_INDEX)
        manifests = fields.sequence("manifests", _descriptor)
        fields.close()
    except BundleError as error:
        raise add_step(error, where) from None
    return manifests


def parse_outer_index(data: bytes | memoryview) -> tuple[Descriptor, ...]:
    """Read `index.json`, which any OCI tool may have written: the descriptors of what the layout holds."""
    try:
        fields = Fields(parse_json(data))
        fields.exactly("schemaVersion", 2)
        return fields.sequence("manifests", _foreign_descriptor)
    except BundleError as error:
        raise add_step(error, media.INDEX_FILE) from None


def parse_referrer(data: bytes | memoryview, where: str) -> Referrer | None:
    """Read a manifest that another tool may have written; None when it is attached to nothing."""
    try:
        fields = Fields(parse_json(data))
        subject = fields.optional("subject", _foreign_descriptor)
        if subject is None:
            return None
        config = fields.read("config", _foreign_descriptor)
        artifact_type = fields.optional("artifactType", as_text) or config.media_type
        return Referrer(subject.digest, artifact_type, config, fields.sequence("layers", _foreign_descriptor))
    except BundleError as error:
        raise add_step(error, where) from None


def _manifest_json(artifact_type: str, config: Descriptor, layers: tuple[Descriptor, ...]) -> dict[str, Json]:
    return {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }


def _expect_kind(fields: Fields, media_type: str) -> None:
    fields.exactly("schemaVersion", 2)
    fields.exactly("mediaType", media_type)
    fields.exactly("artifactType", media.BUNDLE)


def _descriptor(value: Json) -> Descriptor:
    fields = Fields(value)
    result = _take_descriptor(fields)
    fields.close()
    return result


def _foreign_descriptor(value: Json) -> Descriptor:
    return _take_descriptor(Fields(value))


def _take_descriptor(fields: Fields) -> Descriptor:
    return Descriptor(
        media_type=fields.text("mediaType"),
        digest=fields.read("digest", as_digest),
        size=fields.read("size", as_integer),
        artifact_type=fields.optional("artifactType", as_text),
        annotations=fields.optional("annotations", _annotations) or {},
    )


def _annotations(value: Json) -> dict[str, str]:
    return as_mapping(value, as_text)
