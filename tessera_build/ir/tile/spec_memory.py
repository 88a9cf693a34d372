"""Rules of the nodes of Tile IR that touch memory or direct control, and of bindings and functions.

Takes a scope and a node; gives what is wrong with it. Invariant: each rule is one sentence of the node's docstring.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

from tessera_build.ir.core.dims import Extent, Range, symbols_of, terms_of
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.spec import Scope
from tessera_build.ir.core.structure import fields_of
from tessera_build.ir.core.types import DType, Type
from tessera_build.ir.tile.nodes import Alloc, Binding, Copy, For, If, Let, Load, Store, View, Wait

SCOPES = frozenset({"parallel", "serial", "unroll", "group"})
SPACES = frozenset({"register", "stack", "shared", "global"})
RELATIONS = frozenset({"lt", "le", "eq", "ne"})


def dims_of(function: Function) -> tuple[str, ...]:
    """The names in the function's attribute `dims`."""
    listed = function.attributes.get("dims", ())
    return tuple(map(str, cast("tuple[object, ...]", listed))) if isinstance(listed, tuple) else ()


def function_dims(scope: Scope) -> Iterator[str]:
    """The attribute `dims` is a tuple of different identifiers."""
    listed = scope.function.attributes.get("dims", ())
    names = dims_of(scope.function)
    if not isinstance(listed, tuple) or len(set(names)) != len(names) or not all(n.isidentifier() for n in names):
        yield f"dims is {listed!r}, not a tuple of different identifiers"


def arguments_are_buffers(scope: Scope) -> Iterator[str]:
    """Arguments are buffers."""
    for value in scope.function.args:
        if value in scope.function.types and scope.type(value).container != "memref":
            yield f"argument %{value} is {scope.type(value)}, not a memref"


def _is_tile(type_: Type) -> bool:
    return type_.container == "vector" and all(isinstance(e, int) and e >= 1 for e in type_.shape)


def results_are_tiles(scope: Scope, node: Node) -> Iterator[str]:
    """Results are tiles of static shape with extents of at least 1."""
    for f in fields_of(type(node)):
        values: tuple[int, ...] = getattr(node, f.name) if f.role == "defs" else ()
        values = (getattr(node, f.name),) if f.role == "def" else values
        for value in values:
            if not _is_tile(scope.type(value)):
                yield f"result %{value} is {scope.type(value)}, not a tile of static shape"


def binding_names(scope: Scope, node: Node) -> Iterator[str]:
    """A binding names a known scope, space and instruction, and a stage of at least 1."""
    binding: Binding | None = getattr(node, "binding", None)
    if binding is None:
        return
    if binding.scope is not None and binding.scope not in SCOPES:
        yield f"scope {binding.scope!r} is not one of {', '.join(sorted(SCOPES))}"
    if binding.space is not None and binding.space not in SPACES:
        yield f"space {binding.space!r} is not one of {', '.join(sorted(SPACES))}"
    if binding.instruction is not None and not scope.names & {"any", binding.instruction}:
        yield f"instruction {binding.instruction!r} is not in the machine's table"
    if binding.stage is not None and binding.stage < 1:
        yield f"stage {binding.stage} is less than 1"


def alloc_static(scope: Scope, node: Alloc) -> Iterator[str]:
    """A scratch buffer is a memref of static shape."""
    type_ = scope.type(node.result)
    if type_.container != "memref" or not all(isinstance(e, int) for e in type_.shape):
        yield f"result is {type_}, not a memref of static shape"


def view_of_buffer(scope: Scope, node: View) -> Iterator[str]:
    """A view shows a buffer (an argument or an alloc), never another view."""
    if scope.type(node.buffer).container != "memref" or isinstance(scope.maker(node.buffer), View):
        yield f"%{node.buffer} is not a buffer"


def view_shape(scope: Scope, node: View) -> Iterator[str]:
    """One offset per buffer axis, one `ViewAxis` per tile axis; same element type; static shape."""
    buffer, view = scope.type(node.buffer), scope.type(node.result)
    if view.container != "memref" or not all(isinstance(e, int) and e >= 1 for e in view.shape):
        yield f"result is {view}, not a memref of static shape"
    if len(node.offsets) != buffer.rank:
        yield f"{len(node.offsets)} offsets for a buffer of rank {buffer.rank}"
    if len(node.axes) != view.rank:
        yield f"{len(node.axes)} axes for a view of rank {view.rank}"
    if view.dtype != buffer.dtype:
        yield f"element type {view.dtype} of a buffer of {buffer.dtype}"


def view_axes(scope: Scope, node: View) -> Iterator[str]:
    """A `ViewAxis` names an axis of the buffer, or -1, and moves along it."""
    rank = scope.type(node.buffer).rank
    for position, axis in enumerate(node.axes):
        if not -1 <= axis.axis < rank:
            yield f"tile axis {position} walks axis {axis.axis} of a buffer of rank {rank}"
        if axis.step == 0:
            yield f"tile axis {position} has step 0; an axis that does not move is axis -1"
        if axis.axis == -1 and axis.checked:
            yield f"tile axis {position} does not move, so there is nothing to check"


def view_gather(scope: Scope, node: View) -> Iterator[str]:
    """`indices` is an integer tile that broadcasts to the view, and `gather_axis` says which axis it is added to."""
    if node.indices is None:
        if node.gather_axis != -1 or node.gather_checked:
            yield "gather_axis or gather_checked without indices"
        return
    indices, shape = scope.type(node.indices), scope.type(node.result).shape
    if not 0 <= node.gather_axis < scope.type(node.buffer).rank:
        yield f"gather_axis {node.gather_axis} is not an axis of the buffer"
    if not _is_tile(indices) or indices.dtype.kind not in {"signed", "unsigned"}:
        yield f"indices are {indices}, not an integer tile"
    elif indices.rank != len(shape) or any(a not in (1, b) for a, b in zip(indices.shape, shape, strict=True)):
        yield f"indices of shape {list(indices.shape)} do not broadcast to {list(shape)}"


def view_bounds(scope: Scope, node: View) -> Iterator[str]:
    """What is not checked stays inside the buffer, as far as constant extents show."""
    buffer, view = scope.type(node.buffer), scope.type(node.result)
    if scope.guarded or len(node.offsets) != buffer.rank or len(node.axes) != view.rank:
        return
    checked = {axis.axis for axis in node.axes if axis.checked}
    for position, (offset, extent) in enumerate(zip(node.offsets, buffer.shape, strict=True)):
        reaches = [(a.step * (n - 1)) for a, n in zip(node.axes, view.static_shape, strict=True) if a.axis == position]
        low, high = scope.bounds(offset)
        if (
            position in checked
            or position == node.gather_axis
            or not isinstance(extent, int)
            or not _exact(scope, offset)
        ):
            continue
        first = None if low is None else low + sum(r for r in reaches if r < 0)
        last = None if high is None else high + sum(r for r in reaches if r > 0)
        if (first is not None and first < 0) or (last is not None and last >= extent):
            yield f"axis {position} reaches {first} to {last} in an extent of {extent}, unchecked"


def _exact(scope: Scope, offset: Extent) -> bool:
    """Interval arithmetic is exact for sums of different symbols, where none bounds another."""
    atoms = [atom for monomial, _ in terms_of(offset) for atom, power in monomial for _ in range(power)]
    if len(set(atoms)) != len(atoms) or any(a.function for a in atoms) or any(len(m) > 1 for m, _ in terms_of(offset)):
        return False
    names = symbols_of(offset)
    loops = [node for name in names if isinstance(node := scope.binders.get(name), For)]
    return not any(names & symbols_of(loop.extent) for loop in loops)


def _is_view(scope: Scope, value: int) -> bool:
    return isinstance(scope.maker(value), View)


def load_view(scope: Scope, node: Load) -> Iterator[str]:
    """A load gives the tile of its view."""
    view, tile = scope.type(node.view), scope.type(node.result)
    if not _is_view(scope, node.view):
        yield f"%{node.view} is not a view"
    elif (view.shape, view.dtype) != (tile.shape, tile.dtype):
        yield f"a load of {view} gives {tile}"


def pad_fits(scope: Scope, node: Load | Copy) -> Iterator[str]:
    """The pad value is a value of the element type, or an infinity, which is an integer type's extreme."""
    dtype = scope.type(node.view if isinstance(node, Load) else node.source).dtype
    if not _fits(node.pad, dtype):
        yield f"pad {node.pad} is not a value of {dtype}"


def _fits(value: float, dtype: DType) -> bool:
    if dtype.is_float or math.isinf(value):
        return True
    if value != value or value != int(value):
        return False
    bits = dtype.bits - (dtype.kind == "signed")
    low = -(1 << bits) if dtype.kind == "signed" else 0
    return low <= int(value) < 1 << bits


def store_view(scope: Scope, node: Store) -> Iterator[str]:
    """A store writes a tile of its view's shape and type."""
    view, tile = scope.type(node.view), scope.type(node.value)
    if not _is_view(scope, node.view):
        yield f"%{node.view} is not a view"
    elif not _is_tile(tile) or (view.shape, view.dtype) != (tile.shape, tile.dtype):
        yield f"a store of {tile} through {view}"


def copy_views(scope: Scope, node: Copy) -> Iterator[str]:
    """A copy joins two views of one shape and type."""
    if not (_is_view(scope, node.source) and _is_view(scope, node.target)):
        yield "source and target are not both views"
    elif scope.type(node.source) != scope.type(node.target):
        yield f"a copy of {scope.type(node.source)} to {scope.type(node.target)}"


def wait_pending(_scope: Scope, node: Wait) -> Iterator[str]:
    """The number of pending copies is not negative."""
    if node.pending < 0:
        yield f"pending is {node.pending}"


def for_step(_scope: Scope, node: For) -> Iterator[str]:
    """Loops go upwards."""
    if node.step < 1:
        yield f"step {node.step} is less than 1"


def for_carried(scope: Scope, node: For) -> Iterator[str]:
    """Carried values, the body's arguments, what it yields and the results agree in number and type."""
    groups = (node.carried, node.body.args, node.body.results, node.results)
    types = [[scope.type(value) for value in group] for group in groups]
    if any(a != b for a, b in pairwise(types)):
        listed = ["(" + ", ".join(map(str, t)) + ")" for t in types]
        yield f"carried {listed[0]}, arguments {listed[1]}, yielded {listed[2]}, results {listed[3]} differ"


def if_regions(scope: Scope, node: If) -> Iterator[str]:
    """Both regions take nothing and yield values of the results' types."""
    wanted = [scope.type(r) for r in node.results]
    for name, region in (("then", node.then), ("otherwise", node.otherwise)):
        if region.args:
            yield f"region {name} has arguments"
        if [scope.type(r) for r in region.results] != wanted:
            yield f"region {name} does not yield the results' types"


def if_relation(_scope: Scope, node: If) -> Iterator[str]:
    """The relation is one of four."""
    if node.relation not in RELATIONS:
        yield f"relation {node.relation!r} is not one of {', '.join(sorted(RELATIONS))}"


def let_value(scope: Scope, node: Let) -> Iterator[str]:
    """The value is an integer tile of one element."""
    type_ = scope.type(node.value)
    if not _is_tile(type_) or type_.dtype.kind not in {"signed", "unsigned"} or math.prod(type_.static_shape) != 1:
        yield f"value is {type_}, not an integer tile of one element"


def let_results(scope: Scope, node: Let) -> Iterator[str]:
    """The body takes nothing and yields values of the results' types."""
    if node.body.args:
        yield "the body has arguments"
    if [scope.type(r) for r in node.body.results] != [scope.type(r) for r in node.results]:
        yield "the body does not yield the results' types"


def loop_range(scope: Scope, node: Node) -> Range:
    """The values that the index of a loop, or of data, takes, as far as its extent is bounded."""
    if isinstance(node, Let):
        top = scope.bounds(node.extent)[1]
        return 0, None if top is None else max(0, top - 1)
    if not isinstance(node, For) or node.step < 1:
        return 0, None
    _, high = scope.bounds(node.extent)
    return 0, None if high is None else max(0, (high - 1) // node.step * node.step)
