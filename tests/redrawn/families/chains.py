"""Chains of three to eight nodes over one or two inputs, and bodies: what fusion, folding and layouts meet.

Takes seeds; gives whole cases. Invariant: each step knows the shape of what it reads, so every chain is a sound model;
symbolic extents are those of the inputs, and a grown call has larger ones at the same places.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tessera_build.ir.graph.nodes import Array
from tests.redrawn.cases import Case
from tests.redrawn.draw import Draw
from tests.redrawn.oracles import by_onnxruntime, difference

# Smooth and slow: a cosine or a floor of a long sum answers to the order of its terms.
_UNARY = ("Relu", "Neg", "Abs", "Exp", "Sigmoid", "Tanh", "Erf", "Softsign", "Softplus", "HardSwish", "Elu", "Mish")
_BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Div", "PRelu")
_REDUCED = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
_OPSET = 21
_APART = 7_000_003  # seeds of further attempts are those of no other case
_NUDGE = 1e-5


@dataclass(slots=True)
class Chain:
    """A graph that is being drawn: `values` are its tensors with their extents, dynamic ones as names of `sizes`."""

    draw: Draw
    values: list[tuple[str, tuple[int | str, ...]]] = field(default_factory=list[tuple[str, tuple[int | str, ...]]])
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    weights: list[TensorProto] = field(default_factory=list[TensorProto])

    def take(self) -> tuple[str, tuple[int | str, ...]]:
        """An earlier value, mostly the last."""
        return self.values[-1] if self.draw.maybe(0.7) else self.draw.one(self.values)

    def constant(self, array: Array) -> str:
        """A weight."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: list[str], shape: tuple[int | str, ...], **attributes: object) -> None:
        """A node with one result."""
        name = f"v{len(self.nodes)}"
        node = helper.make_node(op, inputs, [name], name=f"n{len(self.nodes)}")
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.nodes.append(node)
        self.values.append((name, shape))


def _unary(chain: Chain) -> None:
    name, shape = chain.take()
    chain.add(chain.draw.one(_UNARY), [name], shape)


def _weighted(chain: Chain) -> None:
    name, shape = chain.take()
    extents = [1 if isinstance(e, str) or chain.draw.maybe(0.3) else e for e in shape]
    extents = extents[chain.draw.whole(0, len(extents)) :]
    op = chain.draw.one(_BINARY)
    weight = chain.constant(chain.draw.values(extents))
    chain.add(op, [name, weight] if op == "PRelu" or chain.draw.maybe(0.7) else [weight, name], shape)


def _joined(chain: Chain) -> None:
    name, shape = chain.take()
    others = [n for n, s in chain.values if s == shape]
    chain.add(chain.draw.one(_BINARY[:5]), [name, chain.draw.one(others)], shape)


def _transposed(chain: Chain) -> None:
    name, shape = chain.take()
    if not shape:
        return
    perm = chain.draw.random.sample(range(len(shape)), len(shape))
    chain.add("Transpose", [name], tuple(shape[p] for p in perm), perm=perm)


def _reduced(chain: Chain) -> None:
    name, shape = chain.take()
    axes = sorted(chain.draw.random.sample(range(len(shape)), min(len(shape), chain.draw.one([1, 1, 2]))))
    if not axes:
        return
    kept = chain.draw.whole(0, 1)
    result = tuple(1 if i in axes else e for i, e in enumerate(shape) if kept or i not in axes)
    chain.add(chain.draw.one(_REDUCED), [name, chain.constant(np.array(axes))], result, keepdims=kept)
    if kept and chain.draw.maybe(0.7):  # as normalisations do
        reduced = chain.values[-1][0]
        chain.add(chain.draw.one(["Sub", "Mul", "Add"]), [name, reduced], shape)


def _along(chain: Chain) -> None:
    name, shape = chain.take()
    if shape:
        op = chain.draw.one(["Softmax", "LogSoftmax", "CumSum"])
        axis = chain.draw.axis(len(shape))
        if op == "CumSum":
            chain.add(op, [name, chain.constant(np.array(axis))], shape, reverse=chain.draw.whole(0, 1))
        else:
            chain.add(op, [name], shape, axis=axis)


def _product(chain: Chain) -> None:
    name, shape = chain.take()
    if len(shape) > 1 and isinstance(shape[-1], int) and shape[-1]:
        columns = chain.draw.one([1, 3, 8, 17])
        weight = chain.constant(chain.draw.values((shape[-1], columns)))
        chain.add("MatMul", [name, weight], (*shape[:-1], columns))


def _itself(chain: Chain) -> None:
    """A matrix times its transpose."""
    name, shape = chain.take()
    if len(shape) > 1:
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        chain.add("Transpose", [name], tuple(shape[p] for p in perm), perm=perm)
        chain.add("MatMul", [name, chain.values[-1][0]], (*shape[:-1], shape[-2]))


def _sliced(chain: Chain) -> None:
    name, shape = chain.take()
    axes = [i for i, e in enumerate(shape) if isinstance(e, int) and e > 1]
    if axes:
        axis = chain.draw.one(axes)
        extent = int(shape[axis])
        start = chain.draw.whole(0, extent - 1)
        step = chain.draw.one([1, 1, 2, -1])
        end = chain.draw.whole(start + 1, extent) if step > 0 else -extent - 1
        count = len(range(extent)[start : end if step > 0 else None : step])
        rows = [chain.constant(np.array([v])) for v in (start, end, axis, step)]
        chain.add("Slice", [name, *rows], (*shape[:axis], count, *shape[axis + 1 :]))


def _concatenated(chain: Chain) -> None:
    name, shape = chain.take()
    axes = [i for i, e in enumerate(shape) if isinstance(e, int)]
    others = [n for n, s in chain.values if s == shape]
    if axes:
        axis = chain.draw.one(axes)
        extent = 2 * int(shape[axis])
        chain.add("Concat", [name, chain.draw.one(others)], (*shape[:axis], extent, *shape[axis + 1 :]), axis=axis)


def _padded(chain: Chain) -> None:
    name, shape = chain.take()
    axes = [i for i, e in enumerate(shape) if isinstance(e, int)]
    if axes:
        axis = chain.draw.one(axes)
        before, after = chain.draw.whole(0, 2), chain.draw.whole(0, 2)
        pads = [before if i == axis else 0 for i in range(len(shape))] + [
            after if i == axis else 0 for i in range(len(shape))
        ]
        extent = int(shape[axis]) + before + after
        chain.add("Pad", [name, chain.constant(np.array(pads))], (*shape[:axis], extent, *shape[axis + 1 :]))


def _gathered(chain: Chain) -> None:
    name, shape = chain.take()
    axes = [i for i, e in enumerate(shape) if isinstance(e, int) and e]
    if axes:
        axis = chain.draw.one(axes)
        extent, count = int(shape[axis]), chain.draw.whole(1, 4)
        indices = chain.constant(chain.draw.between(-extent, extent, (count,), np.int64))
        chain.add("Gather", [name, indices], (*shape[:axis], count, *shape[axis + 1 :]), axis=axis)


def _reshaped(chain: Chain) -> None:
    name, shape = chain.take()
    if not shape:
        return
    place = chain.draw.whole(0, len(shape) - 1)
    extent = shape[place]
    if isinstance(extent, int) and extent > 1 and extent % 2 == 0 and len(shape) < 5:
        target: tuple[int | str, ...] = (*shape[:place], 2, extent // 2, *shape[place + 1 :])
    elif place + 1 < len(shape) and isinstance(extent, int) and isinstance(shape[place + 1], int):
        target = (*shape[:place], extent * int(shape[place + 1]), *shape[place + 2 :])
    else:
        target = (*shape[:place], 1, *shape[place:])
    if sum(isinstance(e, str) for e in target) < 2 and 0 not in target:
        stated = np.array([-1 if isinstance(e, str) else e for e in target])
        chain.add("Reshape", [name, chain.constant(stated)], target)


def _normalised(chain: Chain) -> None:
    name, shape = chain.take()
    if shape and isinstance(shape[-1], int) and shape[-1] > 1:
        weights = [chain.constant(chain.draw.values((shape[-1],))) for _ in range(2)]
        chain.add("LayerNormalization", [name, *weights], shape, axis=-1)


def _windowed(chain: Chain) -> None:
    name, shape = chain.take()
    if len(shape) == 4 and isinstance(shape[1], int) and shape[1] and "0" not in map(str, shape):
        if chain.draw.maybe():
            kind = chain.draw.one(["MaxPool", "AveragePool"])
            chain.add(kind, [name], shape, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            return
        channels = chain.draw.one([1, 4, 8])
        weight = chain.constant(chain.draw.values((channels, shape[1], 3, 3)))
        bias = chain.constant(chain.draw.values((channels,)))
        chain.add("Conv", [name, weight, bias], (shape[0], channels, *shape[2:]), pads=[1, 1, 1, 1])


def _chosen(chain: Chain) -> None:
    name, shape = chain.take()
    others = [n for n, s in chain.values if s == shape]
    chain.add("Greater", [name, chain.constant(np.asarray(0.1, np.float32))], shape)
    condition, _ = chain.values.pop()  # its type is another
    chain.add("Where", [condition, name, chain.draw.one(others)], shape)


STEPS: tuple[Callable[[Chain], None], ...] = (
    *(_unary,) * 3,
    *(_weighted,) * 3,
    *(_joined,) * 2,
    _transposed,
    *(_reduced,) * 2,
    _along,
    _product,
    _itself,
    _sliced,
    _concatenated,
    _padded,
    _gathered,
    _reshaped,
    _normalised,
    *(_windowed,) * 2,
    _chosen,
)


def chain(seed: int) -> Case:
    """Some steps over one or two inputs of one shape, static or not, which answer to no rounding of theirs."""
    return next(case for case in (_chain(seed + attempt * _APART) for attempt in itertools.count()) if _steady(case))


def _steady(case: Case) -> bool:
    """True where inputs that are nudged by 1 in 100,000 change no result by the tolerance of ten times that.

    A sum in another order is a smaller nudge; the exponential of a sum of 80 magnifies either beyond any tolerance.
    """
    answers, numbers = by_onnxruntime(case), np.random.default_rng(1)
    nudged = [
        {name: np.multiply(a, 1 + _NUDGE * numbers.uniform(-1, 1, a.shape)).astype(a.dtype) for name, a in call.items()}
        for call in case.calls
    ]
    moved = by_onnxruntime(replace(case, calls=nudged))
    return answers is None or moved is None or not difference(moved, answers)


def _chain(seed: int) -> Case:
    draw = Draw(seed)
    rank = draw.one([1, 2, 3, 3, 4, 4, 4])
    shape: tuple[int | str, ...] = tuple(draw.one([1, 2, 3, 4, 6, 8, 16, 17, 33, 64]) for _ in range(rank))
    sizes: dict[str, tuple[int, int]] = {}
    if draw.maybe():
        for axis in draw.random.sample(range(rank), draw.one([1, 1, min(2, rank)])):
            sizes[f"N{axis}"] = (draw.whole(2, 9), draw.one([1, draw.whole(2, 33), draw.whole(34, 70)]))
            shape = (*shape[:axis], f"N{axis}", *shape[axis + 1 :])
    made = Chain(draw, [("x", shape)])
    inputs = ["x"]
    if draw.maybe(0.4):
        made.values.append(("z", shape))
        inputs.append("z")
    for _ in range(draw.whole(3, 8)):
        draw.one(STEPS)(made)
        if np.prod([e if isinstance(e, int) else 9 for e in made.values[-1][1]]) > 30_000:
            break
    used = [n for n in inputs if any(n in node.input for node in made.nodes)] or inputs[:1]
    calls = [
        {n: draw.values([e if isinstance(e, int) else sizes[e][i] for e in shape]) for n in used}
        for i in range(2 if sizes else 1)
    ]
    return Case("chain", _model(made, used, shape), calls)


def _model(made: Chain, inputs: list[str], shape: tuple[int | str, ...]) -> onnx.ModelProto:
    read = {i for node in made.nodes for i in node.input}
    results = [name for name, _ in made.values if name not in read and name not in ("x", "z")]
    if made.values[-1][0] not in results or not results:
        made.add("Identity", [made.values[-1][0]], made.values[-1][1])
        results.append(made.values[-1][0])
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape)) for n in inputs]
    outputs = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph(made.nodes, "chain", given, outputs, made.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


CHAINS: Mapping[str, Callable[[int], Case]] = {f"chain_{i}": chain for i in range(40)}
