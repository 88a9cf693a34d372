"""A wrong group cut out of its model: a folder that shows the error without the rest.

Takes: one launch of a bundle whose answer differs from the reference, the inputs that show it, the model.
Gives: a folder with the group's arrays and IR and, where its operators can be cut out of the ONNX file, a model of
their own with inputs and both outputs.
Invariant: everything in the folder was computed here; a file that could not be made is left out, never invented.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.driver.source import Model
from tessera_build.frontends.onnx.extract import Part, extract, shaped, with_outputs
from tessera_build.ir.core.node import Function, Node, Span
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.text import print_function
from tessera_build.ir.tile.text import print_function as print_tile
from tessera_build.lower.program.records import ValuePlace
from tessera_build.verify.compare import error_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.execute import CompiledProgram, Memory
from tessera_build.verify.groups import Case, Groups, dynamic, reference_values
from tessera_build.verify.onnx_reference import OnnxReference

_NOTE: Final = """{node} gives a wrong answer: its error is {error:.3g} of the largest reference value.

group.npz      what the launch read, what the reference gives for it, what the bundle gave
group.mlir     the graph nodes of the launch
kernel.mlir    its tile program
model.onnx     the same operators as a model of their own (when it is there)
inputs.npz     inputs of that model
expected.npz   onnxruntime's outputs on them

Try it again:
  tessera build model.onnx -o model.tessera --no-verify
  tessera verify model.tessera model.onnx --bisect --input inputs.npz
"""


@dataclass(frozen=True, slots=True, eq=False)
class Reproducer:
    """Which launch of which program to cut out, and on which inputs."""

    groups: Groups
    case: Case
    launch: int
    program: CompiledProgram
    model: Model


def write_reproducer(of: Reproducer, folder: Path) -> tuple[Path, ...]:
    """Write the folder and give the files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    record = of.groups.records[of.launch]
    expected = reference_values(of.groups, of.case, frozenset((of.launch,)))
    arrays = _arrays(of, expected)
    nodes = nodes_of(of.groups, of.launch)
    np.savez(folder / "group.npz", **arrays)  # type: ignore[arg-type]
    (folder / "group.mlir").write_text(print_function(_function(of.groups, nodes), locations=True), encoding="utf-8")
    (folder / "kernel.mlir").write_text(print_tile(record.tile_function), encoding="utf-8")
    errors = [error_of(arrays[f"actual{p.value}"], arrays[f"expected{p.value}"]) for p in record.writes]
    _write_model(of, nodes, folder)
    text = _NOTE.format(node=of.groups.name(of.launch), error=max(errors, default=0.0))
    (folder / "README.txt").write_text(text, encoding="utf-8")
    return tuple(sorted(folder.iterdir()))


def _arrays(of: Reproducer, expected: dict[int, Array]) -> dict[str, Array]:
    """What the launch reads, should give and gives, when it is fed with the reference's values."""
    record = of.groups.records[of.launch]
    found: dict[str, Array] = {}

    def look(launch: int, phase: int, memory: Memory) -> None:
        if launch != of.launch:
            return
        if phase == 0:
            for place in dynamic(record.reads):
                if place.value in expected:
                    memory.at(place)[...] = expected[place.value]
        for place in record.reads if phase == 0 else record.writes:
            found[f"{_role(place, phase)}{place.value}"] = memory.at(place).copy()

    of.program.run(of.case.entry, of.case.inputs, of.case.sizes, look)
    return found | {f"expected{p.value}": expected[p.value] for p in record.writes if p.value in expected}


def _role(place: ValuePlace, phase: int) -> str:
    return "actual" if phase else "weight" if place.space == "weight" else "read"


def nodes_of(groups: Groups, launch: int) -> tuple[GraphNode, ...]:
    """The graph nodes that a launch computes: those between what it reads and what it writes, in order."""
    function, origin = groups.module.entries[groups.entry], groups.origin()
    record = groups.records[launch]
    makers = {output: node for node in graph_nodes(function) for output in node.outputs}
    boundary = {origin.get(p.value, p.value) for p in record.reads}
    wanted = [origin.get(p.value, p.value) for p in record.writes]
    chosen: set[int] = set()
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and id(node) not in chosen and node.op != "constant":
            chosen.add(id(node))
            wanted += [value for value in node.inputs if value not in boundary]
    return tuple(node for node in graph_nodes(function) if id(node) in chosen)


def _function(groups: Groups, nodes: tuple[GraphNode, ...]) -> Function:
    """The nodes as a function over what they read."""
    whole = groups.module.entries[groups.entry]
    made = [output for node in nodes for output in node.outputs]
    read = dict.fromkeys(value for node in nodes for value in node.inputs if value not in made)
    inside = {value for node in nodes for value in node.inputs}
    results = tuple(value for value in made if value not in inside) or tuple(made[-1:])
    types = {value: whole.types[value] for value in (*read, *made)}
    spans: dict[Node, Span] = {node: whole.locations[node] for node in nodes if node in whole.locations}
    return Function("group", tuple(read), nodes, results, types, {}, spans)


def _write_model(of: Reproducer, nodes: tuple[GraphNode, ...], folder: Path) -> None:
    """The group's ONNX nodes as a model with inputs and onnxruntime's outputs; nothing where they cannot be cut out."""
    whole = of.groups.module.entries[of.groups.entry]
    names = {whole.locations[node].origin for node in nodes if node in whole.locations}
    try:
        part = extract(of.model, names)  # type: ignore[arg-type]
        if part is None:
            return
        inputs = _inputs(of, part)
        model = shaped(part, inputs).SerializeToString(deterministic=True)
        expected = OnnxReference(model).run(inputs)
    except (VerificationError, TesseraError, OSError):
        return
    (folder / "model.onnx").write_bytes(model)
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    np.savez(folder / "expected.npz", **expected)  # type: ignore[arg-type]


def _inputs(of: Reproducer, part: Part) -> dict[str, Array]:
    """What onnxruntime computes, in the whole model, for the values that the part reads."""
    inside = [name for name in part.inputs if name not in of.case.inputs]
    if not inside:
        return {name: np.asarray(of.case.inputs[name]) for name in part.inputs}
    data = with_outputs(of.model, inside).SerializeToString(deterministic=True)  # type: ignore[arg-type]
    found = OnnxReference(data).run(of.case.inputs)
    return {name: np.asarray(of.case.inputs.get(name, found.get(name))) for name in part.inputs}
