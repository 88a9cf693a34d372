"""An ONNX model whose float weights are inputs, so that they can be changed and differentiated by.

Takes a path; gives `Trainable`: a module whose entry takes the model's inputs and then its weights, and the weights'
arrays by name. Invariant: every weight is itself, though equal numbers would be one constant; what an operator must
know when it is built (a scale of Resize, the bounds of Pad) stays a constant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from tessera_build.frontends.onnx.errors import OnnxError
from tessera_build.frontends.onnx.load import ELEMENT_TYPES, Loaded, array_of, load_model
from tessera_build.frontends.onnx.reader import ENTRY, read_onnx
from tessera_build.frontends.onnx.subgraphs import named_nodes, names_read
from tessera_build.ir.core.dims import DimRequest, symbol
from tessera_build.ir.core.types import DTYPES
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.inline import inline
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.owned import owned_digest

# Running means and variances are measured, not trained.
STATISTICS = "statistics"
WEIGHTS = "weights"
_MEASURED: Mapping[str, tuple[int, ...]] = {"BatchNormalization": (3, 4)}
# Floats that decide shapes.
_SHAPES: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2), "Upsample": (1,)}
_TURNS = 8  # in each, weights that operators must know leave those that change


@dataclass(frozen=True, slots=True, eq=False)
class Trainable:
    """`inputs` are the model's own; `weights` maps names to arrays, `groups` to what they are; `files` were read."""

    module: Module
    inputs: tuple[str, ...]
    weights: Mapping[str, Array]
    groups: Mapping[str, str]
    files: tuple[Path, ...]


def read_trainable(path: Path, dims: Mapping[str, DimRequest] | None = None) -> Trainable:
    """The model with all float weights of more than one element as inputs.

    Raises `ModelError` for a broken model and `UnsupportedError` for one beyond Tessera, as a build of it does.
    """
    model, folder = load_model(path)
    _store_constants(model)
    shapes = set(_read_by(model, _SHAPES))
    chosen = {t.name: t for t in model.graph.initializer if _trained(t) and t.name not in shapes}
    for _ in range(_TURNS):
        try:
            module = read_onnx(Loaded(_with_inputs(model, chosen), path), dims=dims)
            break
        except OnnxError as error:
            needed = _needed(model, error, chosen)
            if not needed:
                raise
            chosen = {name: tensor for name, tensor in chosen.items() if name not in needed}
    else:
        module = read_onnx(path, dims=dims)
        chosen = {}
    names = module.input_names[ENTRY]
    weights = {name: array_of(chosen[name], folder) for name in names if name in chosen}
    measured = set(_read_by(model, _MEASURED))
    groups = {name: STATISTICS if name in measured else WEIGHTS for name in weights}
    return Trainable(module, tuple(n for n in names if n not in weights), weights, groups, _files(model, path))


def read_named(path: Path, dims: Mapping[str, DimRequest] | None = None) -> Module:
    """The model with its float weights of more than one element as constants, each by itself and under its own name.

    `read_onnx` folds what small weights become, such as a bias in the shape that it is added in; here every name of the
    file can be differentiated by. Raises what `read_trainable` raises.
    """
    found = read_trainable(path, dims)
    module, function = found.module, found.module.entries[ENTRY]
    to = GraphBuilder(ENTRY, module.dims)
    values: list[int] = []
    for name, arg in zip(module.input_names[ENTRY], function.args, strict=True):
        if name in found.weights:
            values.append(_own_constant(to, found.weights[name], name))
        else:
            values.append(to.input(name, function.types[arg]))
    results = inline(to, module, ENTRY, values, {dim: symbol(dim) for dim in module.dims})
    for name, value in zip(module.output_names[ENTRY], results, strict=True):
        to.output(name, value)
    for guard in module.guards:
        with to.at(module.guard_spans.get(guard)):
            to.guard(*guard)
    return replace(to.finish(), results=module.results)


def _own_constant(to: GraphBuilder, array: Array, name: str) -> int:
    kept = np.array(array, order="C")
    kept.flags.writeable = False
    digest = owned_digest(kept, name)
    to.pool.arrays[digest], to.pool.names[digest] = kept, name
    return to.pooled(digest)


def _store_constants(model: onnx.ModelProto) -> None:
    """Make weights of what nodes called Constant hold, as some exporters write all of theirs."""
    nodes = [n for n in model.graph.node if n.op_type == "Constant" and n.attribute and n.attribute[0].name == "value"]
    for node in nodes:
        if _trained(node.attribute[0].t):
            model.graph.initializer.add().CopyFrom(node.attribute[0].t)
            model.graph.initializer[-1].name = node.output[0]
            model.graph.node.remove(node)


def _trained(tensor: onnx.TensorProto) -> bool:
    """Whether a weight may change: scalars are numbers of formulas, such as an epsilon or the root of a width."""
    name = ELEMENT_TYPES.get(tensor.data_type, "")
    elements = 1
    for extent in tensor.dims:
        elements *= extent
    return elements > 1 and name in ("f64", "f32", "f16", "bf16") and DTYPES[name].is_float


def _with_inputs(model: onnx.ModelProto, chosen: Mapping[str, onnx.TensorProto]) -> onnx.ModelProto:
    """The model with these weights as inputs behind its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [t for t in copy.graph.initializer if t.name not in chosen]
    own = [i for i in copy.graph.input if i.name not in chosen]
    added = [onnx.helper.make_tensor_value_info(n, t.data_type, list(t.dims)) for n, t in chosen.items()]
    del copy.graph.initializer[:]
    del copy.graph.input[:]
    copy.graph.initializer.extend(kept)
    copy.graph.input.extend([*own, *added])
    return copy


def _needed(model: onnx.ModelProto, error: OnnxError, chosen: Collection[str]) -> set[str]:
    """The weights that nodes with problems read, which may be ones that they must know."""
    wrong = {problem.where for problem in error.problems or (error,)}
    return {n for node, name in named_nodes(model.graph) if name in wrong for n in names_read(node) if n in chosen}


def _read_by(model: onnx.ModelProto, operands: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The names that nodes of some operators read at some places."""
    for node in model.graph.node:
        yield from (node.input[i] for i in operands.get(node.op_type, ()) if i < len(node.input))


def _files(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """The model's file and those that its weights lie in."""
    outside: Sequence[str] = [
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    return (path, *(path.parent / name for name in dict.fromkeys(outside)))
