"""`vmap`: a function of one example becomes a function of many.

Takes a function and the axes that number the examples; gives a function that computes all of them at once. Invariant:
a node gets one more axis in front where its op allows it, and otherwise a loop over the examples, so that every
function that can be traced can be batched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from tessera.derive.inner import Inner, expect_trace, traced
from tessera.errors import LanguageError
from tessera.model.arguments import Place
from tessera.model.expect import expect_functions
from tessera.model.filled import scalar_of
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, lift, trace_of
from tessera.model.tree import leaves, rebuild
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.replay import Replay
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode
from tessera_build.ir.graph.ops.op import axis_of, extents_of, ints_of

Axis = int | None


def vmap(
    function: Callable[..., object], in_axes: Axis | Sequence[Axis] = 0, out_axes: int = 0
) -> Callable[..., object]:
    """The function for many examples, numbered by an axis of each argument (None: the same for all of them).

    An axis belongs to all tensors of its argument. Keyword arguments are the same for all examples.
    """
    expect_functions("graph.vmap", "graph.vmap(f)(x)", function)
    each = _checked_axes(in_axes, out_axes)

    def batched(*arguments: object, **named: object) -> object:
        expect_trace("graph.vmap", arguments)
        axes = list(each) if isinstance(each, tuple) else [each] * len(arguments)
        if len(axes) != len(arguments):
            raise _bad_axes("in_axes has not one axis for each argument", f"{len(arguments)} axes", str(tuple(axes)))
        whole = [_front(argument, axis) for argument, axis in zip(arguments, axes, strict=True)]
        count = _count([leaf for part, axis in zip(whole, axes, strict=True) if axis is not None
                        for _, leaf in leaves(part)])  # fmt: skip
        first = [part if axis is None else _first(part) for part, axis in zip(whole, axes, strict=True)]
        inner = traced(function, first, named)
        full = [(leaf, axis is not None) for part, axis in zip(whole, axes, strict=True) for _, leaf in leaves(part)]
        results = inner.results(_Batch(inner, count).run(full))
        return rebuild(inner.result, [_moved(tensor, 0, out_axes) for tensor in results])

    return batched


def _checked_axes(in_axes: object, out_axes: object) -> Axis | tuple[Axis, ...]:
    """The axis of all arguments, or one for each."""
    listed = isinstance(in_axes, tuple | list)
    axes = cast("Sequence[object]", in_axes) if listed else (in_axes,)
    if not all(axis is None or type(axis) is int for axis in axes):
        raise _bad_axes("in_axes is no axis", "an integer or None, or one of these for each argument", repr(in_axes))
    if type(out_axes) is not int:
        raise _bad_axes("out_axes is no axis", "an integer, for all results", repr(out_axes))
    found = tuple(cast("Sequence[Axis]", axes))
    return found if listed else found[0]


def _front(argument: object, axis: Axis) -> object:
    """Every tensor of an argument with the axis of the examples first."""
    if axis is None:
        return argument
    return rebuild(argument, [_moved(leaf, axis, 0) for _, leaf in leaves(argument)])


def _bad_axes(message: str, expected: str, found: str) -> LanguageError:
    return LanguageError("VMAP_AXES", message, site=here(), expected=expected, found=found)


def _moved(leaf: object, source: int, target: int) -> Value:
    if isinstance(leaf, np.ndarray):
        trace = trace_of(())
        leaf = Tensor(trace, lift(trace, cast("Array", leaf), None, here()))
    if not isinstance(leaf, Value):
        raise _bad_axes("an argument that is no tensor has no examples", "in_axes=None for it", repr(leaf)[:200])
    if not -leaf.ndim <= min(source, target) <= max(source, target) < leaf.ndim:
        wrong = source if target == 0 else target
        raise _bad_axes(f"there is no axis {wrong} of examples", f"an axis of {described(leaf)}", str(wrong))
    if source % leaf.ndim == target % leaf.ndim:
        return leaf
    rest = [i for i in range(leaf.ndim) if i != source % leaf.ndim]
    rest.insert(target % leaf.ndim, source % leaf.ndim)
    return emit("transpose", leaf, perm=tuple(rest))


def _first(argument: object) -> object:
    """One example, for its type: nothing reads its elements, and there may be none."""
    return rebuild(argument, [_one_of(leaf) for _, leaf in leaves(argument) if isinstance(leaf, Value)])


def _one_of(tensor: Value) -> Value:
    zero = scalar_of(0, tensor.dtype, Place("graph.vmap", "x"))
    one = emit("broadcast_to", zero, shape=tensor.shape[1:])
    one.trace.policies[one.value] = tensor.policy
    return one


def _count(tensors: Sequence[object]) -> Extent:
    found = [leaf for leaf in tensors if isinstance(leaf, Value) and leaf.ndim]
    if not found or len(found) < len(tensors) or any(x.shape[0] != found[0].shape[0] for x in found):
        raise LanguageError(
            "VMAP_EXTENTS",
            "the arguments have no one number of examples",
            site=here(),
            expected="tensors with equal extents along in_axes, and at least one of them",
            found=", ".join(described(x) if isinstance(x, Value) else repr(x) for x in tensors) or "none",
        )
    return found[0].shape[0]


class _Batch:
    """The sweep over the nodes of one function. Batched values have the examples as axis 0."""

    def __init__(self, inner: Inner, count: Extent) -> None:
        self.function = inner.function
        self.to: GraphBuilder = inner.outer.builder
        self.count = count
        self.values = dict(zip(inner.function.args, inner.primals, strict=True))
        self.batched: set[int] = set()
        self.inner = inner

    def run(self, full: Sequence[tuple[object, bool]]) -> list[int]:
        """The results for all examples, of arguments and whether they have examples."""
        trace = self.inner.outer
        tensors = [(leaf, flag) for leaf, flag in full if isinstance(leaf, Value)]
        for arg, (leaf, flag) in zip(self.inner.inputs, tensors, strict=True):
            self.values[arg] = leaf.value_in(trace)
            self.batched |= {arg} if flag else set()
        for node in self.function.nodes:
            assert isinstance(node, GraphNode)
            with self.to.at(self.function.locations.get(node) or self.to.span):
                self._node(node)
        return [self._whole(result) for result in self.function.results]

    def _node(self, node: GraphNode) -> None:
        read = (*node.inputs, *captured(node.regions))
        if not self.batched.intersection(read):
            Replay(self.to, self.values, self._type, self.function.locations.get).nodes((node,))
            return
        found = self._by_rule(node)
        made = [found] if found is not None else self._by_loop(node, read)
        self.values.update(zip(node.outputs, made, strict=True))
        self.batched.update(node.outputs)

    def _type(self, value: int) -> Type:
        return self.function.types[value]

    def _rank(self, value: int) -> int:
        return self._type(value).rank

    def _whole(self, value: int) -> int:
        """A value for every example: one that is the same for all is repeated."""
        if value in self.batched:
            return self.values[value]
        shape = (self.count, *self._type(value).shape)
        return self.to.op("broadcast_to", self.values[value], shape=shape)

    def _aligned(self, value: int, rank: int) -> int:
        """An operand that broadcasts with others of `rank` axes behind that of the examples."""
        own = self._type(value).shape
        if value not in self.batched or len(own) == rank:
            return self.values[value]
        return self.to.op("reshape", self.values[value], shape=(self.count, *(1,) * (rank - len(own)), *own))

    def _by_rule(self, node: GraphNode) -> int | None:
        """The node with one more axis in front; None where its op has no such form."""
        if op_named(node.op).elementwise or node.op == "matmul":
            rank = max(self._rank(v) for v in node.inputs)
            return self.to.op(node.op, *(self._aligned(v, rank) for v in node.inputs), **node.attributes)
        if node.op == "concat":
            axis = axis_of(node.attributes, self._rank(node.output)) + 1
            return self.to.op("concat", *(self._whole(v) for v in node.inputs), axis=axis)
        if node.op == "gather":
            return self._gather(node)
        if node.op not in _SHIFTED:
            return None
        if node.op == "broadcast_to":
            aligned = self._aligned(node.inputs[0], self._rank(node.output))
            return self.to.op("broadcast_to", aligned, shape=(self.count, *self._type(node.output).shape))
        return self.to.op(node.op, self._whole(node.inputs[0]), **_SHIFTED[node.op](node.attributes, self.count))

    def _gather(self, node: GraphNode) -> int | None:
        data, indices = node.inputs
        axis = axis_of(node.attributes, self._rank(data))
        if indices not in self.batched:
            return self.to.op("gather", self.values[data], self.values[indices], axis=axis + 1)
        if data in self.batched:
            return None
        found = self.to.op("gather", self.values[data], self.values[indices], axis=axis)
        order = [axis, *(i for i in range(self.to.type(found).rank) if i != axis)]
        return self.to.op("transpose", found, perm=tuple(order))

    def _by_loop(self, node: GraphNode, read: Sequence[int]) -> tuple[int, ...]:
        """The node once for each example, in a loop that stacks its results."""
        index = self.to.fresh_index()
        high = self.count - 1 if isinstance(self.count, int) else None
        with self.to.region((), {index: (0, high)}) as block:
            values = {**self.values, **{v: self._example(v, symbol(index)) for v in read if v in self.batched}}
            Replay(self.to, values, self._type, self.function.locations.get).nodes((node,))
            block.yields(*(values[output] for output in node.outputs))
        how: dict[str, Attribute] = {"index": index, "trips": self.count, "scans": len(node.outputs)}
        return self.to.node("loop", (), how, [block.region])

    def _example(self, value: int, position: Extent) -> int:
        shape = self._type(value).shape
        part = self.to.op(
            "slice",
            self.values[value],
            starts=(position, *(0,) * len(shape)),
            stops=(position + 1, *shape),
            steps=(1,) * (len(shape) + 1),
        )
        return self.to.op("reshape", part, shape=shape)


Shift = Callable[[Mapping[str, Attribute], Extent], dict[str, Attribute]]


def _axes(attributes: Mapping[str, Attribute], _: Extent) -> dict[str, Attribute]:
    return {**attributes, "axes": tuple(axis + 1 for axis in ints_of(attributes, "axes"))}


def _axis(attributes: Mapping[str, Attribute], _: Extent) -> dict[str, Attribute]:
    return {"axis": ints_of({"axis": (attributes["axis"],)}, "axis")[0] + 1}


def _order(attributes: Mapping[str, Attribute], _: Extent) -> dict[str, Attribute]:
    return {"perm": (0, *(axis + 1 for axis in ints_of(attributes, "perm")))}


def _shape(attributes: Mapping[str, Attribute], count: Extent) -> dict[str, Attribute]:
    return {"shape": (count, *extents_of(attributes, "shape"))}


def _bounds(attributes: Mapping[str, Attribute], count: Extent) -> dict[str, Attribute]:
    starts, stops = extents_of(attributes, "starts"), extents_of(attributes, "stops")
    return {"starts": (0, *starts), "stops": (count, *stops), "steps": (1, *ints_of(attributes, "steps"))}


def _borders(attributes: Mapping[str, Attribute], _: Extent) -> dict[str, Attribute]:
    low, high = extents_of(attributes, "low"), extents_of(attributes, "high")
    return {**attributes, "low": (0, *low), "high": (0, *high)}


def _windows(attributes: Mapping[str, Attribute], _: Extent) -> dict[str, Attribute]:
    first = {"window": 1, "strides": 1, "low": 0, "high": 0, "dilations": 1}
    return {**attributes, **{name: (number, *ints_of(attributes, name)) for name, number in first.items()}}


# How attributes that speak of axes change when one more stands in front.
_SHIFTED: Mapping[str, Shift] = {
    "reduce": _axes,
    "softmax": _axis,
    "transpose": _order,
    "reshape": _shape,
    "broadcast_to": _shape,
    "slice": _bounds,
    "pad": _borders,
    "reduce_window": _windows,
}
