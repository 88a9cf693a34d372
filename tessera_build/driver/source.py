"""The model as it was given: a path or an ONNX protobuf.

Takes: what the caller passed to `build` or `verify`.
Gives: its name for people, its digest, and the form in which onnxruntime reads it.
Invariant: neither the path nor the file's name has a part in the digest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from bundle_format.digest import Digest
from tessera_build.frontends.onnx import ModelError


@runtime_checkable
class ModelProto(Protocol):
    """An ONNX protobuf, as far as this room knows it: only the frontend imports the onnx package."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802  protobuf's name
        """The bytes of the file that it would be."""
        ...


Model = str | Path | ModelProto


@dataclass(frozen=True, slots=True)
class Source:
    """`reference` is what onnxruntime loads: the path (its weights may lie beside it) or the bytes."""

    name: str
    digest: Digest
    reference: Path | bytes


def source_of(model: Model) -> Source:
    """Read the model's bytes; a file that cannot be read is a `ModelError`."""
    if isinstance(model, ModelProto):
        data = model.SerializeToString(deterministic=True)
        return Source("the model", Digest.of(data), data)
    path = Path(model)
    try:
        return Source(path.stem, Digest.of(path.read_bytes()), path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError("NO_MODEL", f"the model cannot be read: {reason}", where=str(path)) from error
