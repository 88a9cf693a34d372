"""What the language asks the compiler for: files to read and write, and entries to run.

Takes paths, arrays and modules; gives arrays and callables. Invariant: this is `tessera.executor.Executor`, which is
stated there because the language may not import the compiler (docs/adr/0020).
"""

import atexit
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Final, final

from tessera_build.driver.build import build
from tessera_build.frontends.onnx import Trainable, read_trainable
from tessera_build.frontends.python.safetensors import read_safetensors, write_safetensors
from tessera_build.ir.core.node import Node
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode, Module
from tessera_runtime import Model, load

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
_KEPT: Final = 64  # entries; the one that was not called for longest goes first


@final
class Compiler:
    """The compiler as the language sees it. What it compiled stays loaded, so that equal entries are one."""

    def __init__(self) -> None:
        self.loaded: dict[Hashable, Model] = {}

    def compiled(self, module: Module, entry: str) -> Run:
        """The entry as machine code of this process, from the cache of kernels where that has them."""
        key = _key(module, entry)
        # No lock, which a fork could leave held: each step on the dict is atomic, and two threads may both compile.
        model = self.loaded.pop(key, None) or _loaded(module)
        self.loaded[key] = model
        for oldest in tuple(self.loaded)[:-_KEPT]:
            self.loaded.pop(oldest, None)
        return model.main.run  # the only entry, whose name may be that of an equal one

    def close(self) -> None:
        """Let go of all code."""
        while self.loaded:
            self.loaded.popitem()[1].close()

    def read_onnx(self, path: Path, dims: Mapping[str, int | tuple[int, int]] | None = None) -> Trainable:
        """An ONNX model whose float weights are inputs."""
        return read_trainable(path, dims)

    def read_weights(self, path: Path) -> Mapping[str, Array]:
        """The tensors of a safetensors file, mapped."""
        return read_safetensors(path)

    def write_weights(self, path: Path, arrays: Mapping[str, Array]) -> None:
        """A safetensors file, whole or not at all."""
        write_safetensors(path, arrays)


def _key(module: Module, entry: str) -> Hashable:
    """An entry as it was traced: equal calls are traced alike. A canonical hash takes as long as tracing does."""
    function = module.entries[entry]
    types = tuple(str(function.types[arg]) for arg in function.args)
    names = module.input_names[entry], module.output_names[entry]
    dims = tuple(sorted(module.dims.items()))
    return types, _block(function.nodes), function.results, names, dims, module.guards


def _block(nodes: Sequence[Node]) -> Hashable:
    rows: list[Hashable] = []
    for node in nodes:
        assert isinstance(node, GraphNode), "a function of this level has nodes of this level"
        attributes = tuple((name, _attribute(value)) for name, value in node.attributes.items())
        regions = tuple((region.args, _block(region.nodes), region.results) for region in node.regions)
        rows.append((node.op, node.inputs, node.outputs, attributes, regions))
    return tuple(rows)


def _attribute(value: Attribute) -> Hashable:
    """By what it says: 1, 1.0 and True are equal to Python, and so are the zeros."""
    if isinstance(value, tuple):
        return tuple(_attribute(part) for part in value)
    return (type(value), value.hex()) if isinstance(value, float) else (type(value), value)


def _loaded(module: Module) -> Model:
    """The module built for this machine and loaded; nothing of it stays on disk."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
        bundle = Path(folder) / "called.tessera"
        build(module, ["native"], bundle, verify=False, workers=1)
        return load(bundle)


EXECUTOR: Final = Compiler()
# While the interpreter ends, code can no longer be unloaded.
atexit.register(EXECUTOR.close)
