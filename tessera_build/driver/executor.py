"""What the language asks the compiler for: files to read and write, and entries to run.

Takes paths, arrays and modules; gives arrays and callables. Invariant: this is `tessera.executor.Executor`, which is
stated there because the language may not import the compiler (docs/adr/0020).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from tessera_build.frontends.onnx import Trainable, read_trainable
from tessera_build.frontends.python.safetensors import read_safetensors, write_safetensors
from tessera_build.ir.graph.nodes import Array


@final
class Compiler:
    """The compiler as the language sees it."""

    def read_onnx(self, path: Path, dims: Mapping[str, int | tuple[int, int]] | None = None) -> Trainable:
        """An ONNX model whose float weights are inputs."""
        return read_trainable(path, dims)

    def read_weights(self, path: Path) -> Mapping[str, Array]:
        """The tensors of a safetensors file, mapped."""
        return read_safetensors(path)

    def write_weights(self, path: Path, arrays: Mapping[str, Array]) -> None:
        """A safetensors file, whole or not at all."""
        write_safetensors(path, arrays)


EXECUTOR: Final = Compiler()
