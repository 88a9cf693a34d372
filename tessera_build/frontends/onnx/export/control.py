"""Ops with regions, and sizes from data, as ONNX's If and Loop.

Takes operands and regions; gives results. Invariant: a graph inside a node gives only values that it made itself, and
a loop that stops early gives slices for all its iterations, the missing ones zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tessera_build.frontends.onnx.export.movement import cut
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Block, Operand, Port
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import BOOL, I64, Type, tensor
from tessera_build.ir.graph.ops.control import index_of
from tessera_build.ir.graph.ops.op import extent_of, flag_of, int_of
from tessera_build.ir.graph.ops.sizes import names_of


def _results(site: Site, block: Block, values: Sequence[Operand], types: Sequence[Type]) -> None:
    """Make values the results of a graph; each through a node, for a value from outside is none of its own."""
    for value, type_ in zip(values, types, strict=True):
        own = site.writer.emit("Identity", value, dtype=value.dtype)
        block.outputs.append(Port(own.name, type_))


def _if(site: Site) -> tuple[Operand, ...]:
    graphs: dict[str, Block] = {}
    for name, region in zip(("then_branch", "else_branch"), site.node.regions, strict=True):
        with site.writer.block(name) as graphs[name]:
            _results(site, graphs[name], site.write(region, ()), site.results)
    dtypes = [t.dtype for t in site.results]
    return site.writer.node("If", site.inputs[:1], dtypes, graphs=graphs)


def _loop(site: Site) -> tuple[Operand, ...]:
    writer, trips = site.writer, extent_of(site.attributes["trips"])
    conditional = flag_of(site.attributes, "conditional")
    body = _body(site, site.node.regions[0], conditional)
    carried = site.inputs[1:] if conditional else site.inputs
    condition = site.inputs[0] if conditional else writer.number(True, BOOL)
    dtypes = [t.dtype for t in site.results]
    found = writer.node("Loop", (site.extents.scalar(trips), condition, *carried), dtypes, graphs={"body": body})
    first = len(found) - int_of(site.attributes, "scans")
    return (*found[:first], *(_stacked(site, value, type_) for value, type_ in _slices(site, found, first)))


def _slices(site: Site, found: Sequence[Operand], first: int) -> list[tuple[Operand, Type]]:
    return list(zip(found[first:], site.results[first:], strict=True))


def _body(site: Site, region: Region, conditional: bool) -> Block:
    writer, index, trips = site.writer, index_of(site.attributes), extent_of(site.attributes["trips"])
    types = site.types_of(region.args)
    with writer.block("body") as block:
        number, going = Operand(writer.fresh("step"), I64), Operand(writer.fresh("going"), BOOL)
        arguments = [Operand(writer.fresh("carried"), t.dtype) for t in types]
        block.inputs += [Port(number.name, tensor(I64)), Port(going.name, tensor(BOOL))]
        block.inputs += [Port(a.name, t) for a, t in zip(arguments, types, strict=True)]
        position = writer.reshaped(number, 1)
        if flag_of(site.attributes, "downward"):
            last = writer.emit("Sub", site.extents.vector(trips), writer.integers(1), dtype=I64)
            position = writer.emit("Sub", last, position, dtype=I64)
        site.extents.define(index, position, (0, None))
        results = site.write(region, arguments)
        results = results if conditional else (going, *results)
        given = site.types_of(region.results)
        _results(site, block, results, given if conditional else (tensor(BOOL), *given))
    return block


def _stacked(site: Site, slices: Operand, type_: Type) -> Operand:
    """All slices by index: those of a loop that runs downwards turned round, those that a condition left out zero."""
    writer, trips = site.writer, type_.shape[0]
    downward = flag_of(site.attributes, "downward")
    if flag_of(site.attributes, "conditional"):
        count = writer.emit("Shape", slices, dtype=I64, start=0, end=1)
        missing = writer.emit("Sub", site.extents.vector(trips), count, dtype=I64)
        rest = writer.emit("Shape", slices, dtype=I64, start=1) if type_.rank > 1 else None
        shape = missing if rest is None else writer.emit("Concat", missing, rest, dtype=I64, axis=0)
        zeros = writer.run_on("Expand", writer.number(0, slices.dtype), shape)
        slices = writer.run("Concat", slices, zeros, axis=0)
    if not downward:
        return slices
    least = -(2**63)
    return cut(site, slices, [(0, -1, least, -1)])


def _inlined(site: Site) -> tuple[Operand, ...]:
    """What the first region computes of the operands."""
    return site.write(site.node.regions[0], site.inputs)


def _sizes(site: Site) -> tuple[Operand, ...]:
    """A symbol for each element; the graph's own checks of its bounds have no form in ONNX."""
    for position, name in enumerate(names_of(site.attributes)):
        size = cut(site, site.inputs[0], [(0, position, position + 1, 1)])
        site.extents.define(name, size, (0, None))
    return ()


CONTROL_WRITERS: Mapping[str, WriteNode] = {
    "if": _if,
    "loop": _loop,
    "checkpoint": _inlined,
    "stated": _inlined,
    "sizes": _sizes,
}
