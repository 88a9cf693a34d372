"""Draws, conditions of a run and forests of trees as ONNX operators.

Takes operands; gives results. Invariant: a draw has the bits that a bundle draws, because it is written operation by
operation as Philox is defined.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.export.elementwise import program, reread, scalar
from tessera_build.frontends.onnx.export.movement import counted, expanded
from tessera_build.frontends.onnx.export.reductions import reduced
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand, Writer
from tessera_build.ir.core.philox import KINDS, draw
from tessera_build.ir.core.types import I32, I64, U64
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import dtype_attribute, flag_of, int_of, word_of
from tessera_build.ir.graph.ops.shapes import count
from tessera_build.ir.graph.ops.trees import AGGREGATES

_LARGEST_FOREST = 1 << 26  # numbers in the table of leaves and targets
_NEVER: Mapping[str, float] = {"sum": 0.0, "min": np.inf, "max": -np.inf}


def _random(site: Site) -> Operand:
    kind, dtype = word_of(site.attributes, "kind", KINDS), dtype_attribute(site.attributes, "dtype")
    key = reread(site.writer, site.inputs[0], U64)
    numbers = counted(site, (count(site.result.shape),), 0)
    (drawn,) = program(site.writer, draw(kind, dtype, None, far=True), (key, numbers))
    shape = site.extents.shape(site.result.shape)
    return site.writer.emit("Reshape", drawn, shape, dtype=dtype, allowzero=1)


def unless_ended(writer: Writer, x: Operand, condition: Operand) -> Operand:
    """x where a scalar holds: element 0 of a stack of x alone, else element 1, which is not there and ends the run."""
    place = writer.where(condition, writer.number(0, I64), writer.number(1, I64))
    stack = writer.run_on("Unsqueeze", x, writer.integers(0))
    return writer.run_on("Gather", stack, place, axis=0)


def _checked(site: Site) -> Operand:
    return unless_ended(site.writer, *site.inputs)


# -- forests ----------------------------------------------------------------------------------------------------------


def _tree_ensemble(site: Site) -> Operand:
    """All rows go down all trees at once, a level at a time; a table gives what each leaf adds to each target."""
    writer, tables = site.writer, _tables(site)
    aggregate = word_of(site.attributes, "aggregate", AGGREGATES)
    at = _leaves(site, tables)
    added = writer.run_on("Gather", writer.weight_of(_leaf_table(site, tables, aggregate)), at, axis=0)
    total = reduced(site, added, aggregate, (1,))
    if aggregate == "sum":
        return total
    unseen = scalar(writer, "eq", [total, writer.number(_NEVER[aggregate], total.dtype)])
    return writer.where(unseen, writer.number(0, total.dtype), total)


def _tables(site: Site) -> tuple[Array, ...]:
    found = tuple(array for array in site.arrays[1:] if array is not None)
    if len(found) < len(site.arrays) - 1:
        raise unsupported("a forest whose tables are computed has no form in ONNX")
    return found


def _leaves(site: Site, tables: tuple[Array, ...]) -> Operand:
    """The leaf of every row in every tree [N, R]."""
    feature, split, left, roots = (site.writer.weight_of(t) for t in tables[:4])
    writer, x = site.writer, site.inputs[0]
    columns = int_of(site.attributes, "columns")
    used = writer.emit("Slice", x, *(writer.integers(i) for i in (0, columns, 1)), dtype=x.dtype)
    least = writer.number(-np.inf, x.dtype)
    lowest = writer.where(scalar(writer, "isnan", [used]), least, used)
    values = writer.run("Concat", used, lowest, axis=1)
    at = expanded(site, writer.cast(roots, I64), (site.types[0].shape[0], site.types[4].shape[0]))
    equal = writer.weight_of(tables[9]) if flag_of(site.attributes, "equal") else None
    for _ in range(int_of(site.attributes, "depth")):
        here = writer.emit("Gather", feature, at, dtype=I32)
        value = writer.emit("GatherElements", values, here, dtype=x.dtype, axis=1)
        bound = writer.emit("Gather", split, at, dtype=x.dtype)
        holds = scalar(writer, "le", [value, bound])
        if equal is not None:
            holds = _equal_or(site, (value, bound, holds), writer.emit("Gather", equal, at, dtype=I32))
        at = writer.cast(writer.emit("Gather", left, at, dtype=I32), I64)
        at = scalar(writer, "add", [at, writer.cast(holds, I64)])
    return at


def _equal_or(site: Site, condition: tuple[Operand, Operand, Operand], kind: Operand) -> Operand:
    """Where a node asks for equality, that, with NaN as one more value of those that count missing ones in."""
    writer, (value, bound, holds) = site.writer, condition
    missing = scalar(writer, "and", [scalar(writer, "isnan", [value]), scalar(writer, "gt", [kind, _int(site, 1)])])
    same = scalar(writer, "or", [scalar(writer, "eq", [value, bound]), missing])
    return writer.where(scalar(writer, "gt", [kind, _int(site, 0)]), same, holds)


def _int(site: Site, value: int) -> Operand:
    return site.writer.number(value, I32)


def _leaf_table(site: Site, tables: tuple[Array, ...], aggregate: str) -> NDArray[np.generic]:
    """[nodes, targets]: what a row that ends in a node adds to each target, combined in the order of the entries."""
    first, number, target, weight = tables[5:9]
    shape = (len(first), int_of(site.attributes, "targets"))
    if shape[0] * shape[1] > _LARGEST_FOREST:
        raise unsupported("the forest has too many leaves and targets for a table", found=f"{shape[0]} by {shape[1]}")
    table = np.full(shape, _NEVER[aggregate], np.float64)
    combine = {"sum": np.add, "min": np.minimum, "max": np.maximum}[aggregate]
    counts = number.astype(np.int64)
    nodes = np.repeat(np.arange(len(first)), counts)
    starts = np.repeat(first.astype(np.int64) - np.cumsum(counts) + counts, counts)
    entries = np.arange(len(nodes)) + starts
    combine.at(table, (nodes, target.astype(np.int64)[entries]), weight.astype(np.float64)[entries])
    return table.astype(weight.dtype)


OTHER_WRITERS: Mapping[str, WriteNode] = {
    "random": _random,
    "checked": _checked,
    "tree_ensemble": _tree_ensemble,
}
