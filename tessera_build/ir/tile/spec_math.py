"""Rules of the nodes of Tile IR that compute: contract, map, reduce, permute, iota.

Takes a scope and a node; gives what is wrong with it. Invariant: each rule is one sentence of the node's docstring.
"""

from __future__ import annotations

from collections.abc import Iterator

from tessera_build.ir.core.spec import Scope, program_problems
from tessera_build.ir.core.types import Type
from tessera_build.ir.tile.contraction import parse_spec, tree_width
from tessera_build.ir.tile.nodes import Contract, Iota, Map, Permute, Reduce, View


def contract_spec(scope: Scope, node: Contract) -> Iterator[str]:
    """The spec reads, and names each axis of a, b and the result with one extent a letter."""
    try:
        axes = parse_spec(node.spec)
    except ValueError as error:
        yield str(error)
        return
    extents: dict[str, object] = {}
    for name, letters, value in zip(("a", "b", "the result"), axes, (node.a, node.b, node.result), strict=True):
        type_ = scope.type(value)
        if type_.rank != len(letters):
            yield f"{name} has rank {type_.rank}, the spec {node.spec!r} gives it {len(letters)} axes"
            continue
        for letter, extent in zip(letters, type_.shape, strict=True):
            if extents.setdefault(letter, extent) != extent:
                yield f"axis {letter!r} has extents {extents[letter]} and {extent}"


def contract_types(scope: Scope, node: Contract) -> Iterator[str]:
    """The result has acc's type; a and b are tiles or views of the same kind of number."""
    acc, result = scope.type(node.acc), scope.type(node.result)
    if acc != result or acc.container != "vector":
        yield f"acc is {acc}, the result {result}"
    for name, value in (("a", node.a), ("b", node.b)):
        type_ = scope.type(value)
        if type_.container != "vector" and not isinstance(scope.maker(value), View):
            yield f"{name} is {type_}, neither a tile nor a view"
        if type_.dtype.is_float != acc.dtype.is_float or type_.dtype.kind == "bool":
            yield f"{name} of {type_.dtype} cannot be added up in {acc.dtype}"


def contract_order(_scope: Scope, node: Contract) -> Iterator[str]:
    """The order is "seq" or "hw"."""
    if node.order not in {"seq", "hw"}:
        yield f"order {node.order!r} is neither 'seq' nor 'hw'"


def map_program(scope: Scope, node: Map) -> Iterator[str]:
    """The program takes the operands' element types and gives the result's."""
    operands = [scope.type(o).dtype for o in node.operands]
    yield from program_problems(node.program, operands, [scope.type(node.result).dtype])


def map_shapes(scope: Scope, node: Map) -> Iterator[str]:
    """Operands are tiles of the result's rank whose axes are equal or 1."""
    result = scope.type(node.result)
    for value in node.operands:
        if not _broadcasts(scope.type(value), result):
            yield f"operand {scope.type(value)} does not broadcast to {result}"
    shapes = [scope.type(o).shape for o in node.operands]
    if shapes and all(len(s) == result.rank for s in shapes):
        for axis, extent in enumerate(result.shape):
            if extent != 1 and all(s[axis] == 1 for s in shapes):
                yield f"axis {axis} of the result has extent {extent}, and no operand has"


def _broadcasts(operand: Type, result: Type) -> bool:
    return (
        operand.container == "vector"
        and operand.rank == result.rank
        and all(a in (1, b) for a, b in zip(operand.shape, result.shape, strict=True))
    )


def reduce_program(scope: Scope, node: Reduce) -> Iterator[str]:
    """`combine` takes two tuples of the operands' element types and gives one."""
    dtypes = [scope.type(o).dtype for o in node.operands]
    yield from program_problems(node.combine, dtypes + dtypes, dtypes)


def reduce_shapes(scope: Scope, node: Reduce) -> Iterator[str]:
    """Operands share one shape; results have it too, with extent 1 along the axes."""
    if not node.operands or not len(node.operands) == len(node.results) == len(node.identity):
        yield f"{len(node.operands)} operands, {len(node.results)} results, {len(node.identity)} identities"
        return
    shape = scope.type(node.operands[0]).shape
    if len(set(node.axes)) != len(node.axes) or not set(node.axes) <= set(range(len(shape))):
        yield f"axes {node.axes} of a tile of rank {len(shape)}"
        return
    kept = tuple(1 if axis in node.axes else extent for axis, extent in enumerate(shape))
    for operand, result in zip(node.operands, node.results, strict=True):
        if scope.type(operand).container != "vector" or scope.type(operand).shape != shape:
            yield f"operand {scope.type(operand)} is not a tile of shape {list(shape)}"
        if scope.type(result).shape != kept or scope.type(result).dtype != scope.type(operand).dtype:
            yield f"result {scope.type(result)} of {scope.type(operand)} along axes {node.axes}"


def reduce_order(_scope: Scope, node: Reduce) -> Iterator[str]:
    """The order is "seq" or "tree(n)"."""
    try:
        tree_width(node.order)
    except ValueError as error:
        yield str(error)


def permute_shape(scope: Scope, node: Permute) -> Iterator[str]:
    """The permutation has every axis once, and the result's shape follows it."""
    operand, result = scope.type(node.operand), scope.type(node.result)
    if sorted(node.permutation) != list(range(operand.rank)):
        yield f"{node.permutation} is not a permutation of {operand.rank} axes"
    elif (operand.container, tuple(operand.shape[a] for a in node.permutation), operand.dtype) != (
        "vector",
        result.shape,
        result.dtype,
    ):
        yield f"{operand} permuted by {node.permutation} is not {result}"


def iota_type(scope: Scope, node: Iota) -> Iterator[str]:
    """The result is an integer tile that has the axis."""
    result = scope.type(node.result)
    if result.dtype.kind not in {"signed", "unsigned"}:
        yield f"result is {result}, not an integer tile"
    if not 0 <= node.axis < result.rank:
        yield f"axis {node.axis} of a tile of rank {result.rank}"
