"""Operators of ONNX as calls of PyTorch: elementwise, movement, shapes and reductions.

Takes a `Call`; gives the node's results. Invariant: each is the call that a person would write for the operator, so
that PyTorch is timed and not this table; what a model of the suite does not use is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gradients.values import Call

Operator = Callable[[Call], "Tensor | Sequence[Tensor]"]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: function(call.tensor(0), call.tensor(1))


def _divide(call: Call) -> Tensor:
    a, b = call.tensor(0), call.tensor(1)
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _largest(call: Call) -> Tensor:
    found = call.tensor(0)
    for index in range(1, len(call.given)):
        found = torch.maximum(found, call.tensor(index))
    return found


def _clip(call: Call) -> Tensor:
    low, high = call.optional(1), call.optional(2)
    if call.opset < 11:
        return call.tensor(0).clamp(call.number("min", -torch.inf), call.number("max", torch.inf))
    ends = [None if end is None else float(end.item()) for end in (low, high)]
    return call.tensor(0).clamp(*ends)


def _hard_sigmoid(call: Call) -> Tensor:
    return (call.tensor(0) * call.number("alpha", 0.2) + call.number("beta", 0.5)).clamp(0.0, 1.0)


def _constant(call: Call) -> Tensor:
    found = call.array("value")
    if found is not None:
        return found
    (attribute,) = call.node.attribute
    values = {
        "value_float": attribute.f,
        "value_int": attribute.i,
        "value_floats": list(attribute.floats),
        "value_ints": list(attribute.ints),
    }
    return torch.tensor(values[attribute.name])


def _constant_of_shape(call: Call) -> Tensor:
    value = call.array("value")
    filled = torch.zeros(1) if value is None else value
    return filled.reshape(1).expand(call.tensor(0).tolist()).clone()


def _reshape(call: Call) -> Tensor:
    source, wanted = call.tensor(0), call.tensor(1).tolist()
    if not call.whole("allowzero", 0):
        wanted = [source.shape[i] if extent == 0 else extent for i, extent in enumerate(wanted)]
    return source.reshape(wanted)


def _transpose(call: Call) -> Tensor:
    source = call.tensor(0)
    return source.permute(call.wholes("perm", range(source.dim())[::-1]))


def _unsqueeze(call: Call) -> Tensor:
    found, axes = call.tensor(0), call.wholes_at(1, "axes")
    rank = found.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        found = found.unsqueeze(axis)
    return found


def _squeeze(call: Call) -> Tensor:
    axes = call.wholes_at(1, "axes")
    return call.tensor(0).squeeze(axes) if axes else call.tensor(0).squeeze()


def _gather(call: Call) -> Tensor:
    source, indices, axis = call.tensor(0), call.tensor(1), call.whole("axis", 0)
    indices = torch.where(indices < 0, indices + source.shape[axis], indices)
    if axis == 0 and source.dim() == 2 and source.is_floating_point():
        return functional.embedding(indices, source)
    axis %= source.dim()
    rows = source.index_select(axis, indices.reshape(-1))
    return rows.reshape([*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :]])


def _gather_nd(call: Call) -> Tensor:
    source, indices, batch = call.tensor(0), call.tensor(1), call.whole("batch_dims", 0)
    if batch:
        raise ValueError("GatherND with batch_dims is not in the table")
    return source[tuple(indices.movedim(-1, 0))]


def _slice(call: Call) -> Tensor:
    found = call.tensor(0)
    starts, ends = call.wholes_at(1, "starts"), call.wholes_at(2, "ends")
    axes = call.wholes_at(3, "axes", range(len(starts)))
    steps = call.wholes_at(4, "steps", [1] * len(starts))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            places = list(range(found.shape[axis]))[start:end:step]
            found = found.index_select(axis, torch.tensor(places))
        else:
            chosen = [slice(None)] * found.dim()
            chosen[axis] = slice(start, end, step)
            found = found[tuple(chosen)]
    return found


def _concat(call: Call) -> Tensor:
    return torch.cat([call.tensor(i) for i in range(len(call.given))], call.whole("axis", 0))


def _pad(call: Call) -> Tensor:
    source, pads = call.tensor(0), call.wholes_at(1, "pads")
    axes = [int(a) for a in call.tensor(3).tolist()] if call.optional(3) is not None else list(range(source.dim()))
    widths = [0] * (2 * source.dim())
    for place, axis in enumerate(axes):
        at = 2 * (source.dim() - 1 - axis % source.dim())
        widths[at : at + 2] = pads[place], pads[place + len(axes)]
    mode, value = call.word("mode", "constant"), call.optional(2)
    if mode == "constant":
        return functional.pad(source, widths, value=0.0 if value is None else float(value.item()))
    while widths and not any(widths[-2:]):
        widths = widths[:-2]
    return functional.pad(source, widths, mode={"reflect": "reflect", "edge": "replicate"}[mode])


def _expand(call: Call) -> Tensor:
    shape = torch.broadcast_shapes(call.tensor(0).shape, tuple(call.tensor(1).tolist()))
    return call.tensor(0).expand(shape)


def _range(call: Call) -> Tensor:
    return torch.arange(*(call.tensor(i).item() for i in range(3)), dtype=call.tensor(0).dtype)


def _reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduce(call: Call) -> Tensor:
        source = call.tensor(0)
        axes = call.wholes_at(1, "axes") or list(range(source.dim()))
        return function(source, axes, bool(call.whole("keepdims", 1)))

    return reduce


def _scaler(call: Call) -> Tensor:
    offset, scale = (torch.tensor(list(call.floats(name))) for name in ("offset", "scale"))
    return (call.tensor(0).float() - offset) * scale


def _softmax(call: Call) -> Tensor:
    if call.opset >= 13:
        return torch.softmax(call.tensor(0), call.whole("axis", -1))
    source, axis = call.tensor(0), call.whole("axis", 1)
    return torch.softmax(source.flatten(axis), -1).reshape(source.shape)


OPERATORS: Mapping[str, Operator] = {
    "Add": _binary(torch.add), "Sub": _binary(torch.sub), "Mul": _binary(torch.mul), "Div": _divide,
    "Pow": _binary(torch.pow), "Max": _largest, "Equal": _binary(torch.eq), "And": _binary(torch.logical_and),
    "GreaterOrEqual": _binary(torch.ge), "MatMul": _binary(torch.matmul),
    "Not": _unary(torch.logical_not), "IsNaN": _unary(torch.isnan), "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp), "Sqrt": _unary(torch.sqrt), "Tanh": _unary(torch.tanh), "Relu": _unary(torch.relu),
    "Sigmoid": _unary(torch.sigmoid), "Reciprocal": _unary(torch.reciprocal), "Identity": _unary(lambda x: x),
    "Shape": lambda call: torch.tensor(call.tensor(0).shape[call.whole("start", 0) : call.whole("end", 99)]),
    "Size": _unary(lambda x: torch.tensor(x.numel())),
    "Cast": lambda call: call.tensor(0).to(call.dtype("to")),
    "Where": lambda call: torch.where(call.tensor(0), call.tensor(1), call.tensor(2)),
    "Clip": _clip, "HardSigmoid": _hard_sigmoid, "Softmax": _softmax, "Scaler": _scaler,
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range, "Expand": _expand,
    "Reshape": _reshape, "Transpose": _transpose, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Concat": _concat,
    "Gather": _gather, "GatherND": _gather_nd, "Slice": _slice, "Pad": _pad,
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
}  # fmt: skip
