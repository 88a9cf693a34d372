"""The model as it was given: a path, an ONNX protobuf, or a module that was traced.

Takes: what the caller passed to `build` or `verify`.
Gives: its name for people, its digest, and the form in which onnxruntime reads it.
Invariant: neither the path nor the file's name has a part in the digest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from bundle_format.digest import Digest
from tessera_build.config import ConfigError
from tessera_build.frontends.onnx import ModelError
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.text import print_module


@runtime_checkable
class ModelProto(Protocol):
    """An ONNX protobuf, as far as this room knows it: only the frontend imports the onnx package."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802  protobuf's name
        """The bytes of the file that it would be."""
        ...


Model = str | Path | ModelProto | Module


@dataclass(frozen=True, slots=True)
class Source:
    """`reference` is what onnxruntime loads: the path (its weights may lie beside it) or the bytes.

    None for a model in the language, which onnxruntime cannot read.
    """

    name: str
    digest: Digest
    reference: Path | bytes | None

    def for_onnxruntime(self) -> Path | bytes:
        """The model as onnxruntime loads it; a `ConfigError` for one in the language."""
        if self.reference is None:
            raise ConfigError(
                "NOT_ONNX",
                "this command reads ONNX files only",
                where=self.name,
                hint="`tessera shapes` checks a model.py; `tessera verify` repeats the proof of its bundle without it",
            )
        return self.reference


def is_python(model: Model) -> bool:
    """Whether the model is a file of the language."""
    return isinstance(model, str | Path) and Path(model).suffix == ".py"


def source_of(model: Model) -> Source:
    """Read the model's bytes; a file that cannot be read is a `ModelError`."""
    if isinstance(model, Module):
        return Source("the module", Digest.of(print_module(model).encode()), None)
    if isinstance(model, ModelProto):
        data = model.SerializeToString(deterministic=True)
        return Source("the model", Digest.of(data), data)
    path = Path(model)
    try:
        return Source(path.stem, Digest.of(path.read_bytes()), None if is_python(model) else path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError("NO_MODEL", f"the model cannot be read: {reason}", where=str(path)) from error
