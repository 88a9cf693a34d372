"""Operators of opsets 1 to 6, brought into the form that they have had since opset 7.

Takes a call of such an operator; gives an equal call in today's form. Invariant: an operator whose schema changed
before opset 7 is either brought up to date here or refused by name; none is read as if it were a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported

SETTLED = 7  # the first opset with the broadcasting of today
_Change = Callable[[Context, Call], Call]


def of_any_age(translate: Translator) -> Translator:
    """The translator, for operators of the first opsets as well."""

    def translated(c: Context, n: Call) -> Value | tuple[Value, ...]:
        return translate(c, n if n.opset >= SETTLED or n.domain else _modern(c, n))

    return translated


def _modern(c: Context, n: Call) -> Call:
    n.ignore("consumed_inputs")  # a hint to reuse memory
    change = _CHANGES.get(n.op)
    if change is not None:
        return change(c, n)
    try:
        then, since = (onnx.defs.get_schema(n.op, version).since_version for version in (max(n.opset, 1), SETTLED))
    except onnx.defs.SchemaError as error:
        raise ill_formed(f"opset {n.opset} has no operator {n.op}") from error
    if then != since and n.op not in _SAME:
        raise unsupported(
            f"{n.op} of opset {n.opset} is not built, it has changed since",
            hint=f"convert the model to opset {SETTLED} or newer with onnx.version_converter",
        )
    return n


def _with_inputs(n: Call, *inputs: Value | None) -> Call:
    return replace(n, inputs=inputs)


def _broadcast(c: Context, n: Call) -> Call:
    """The second operand's axes lie on the first one's from `axis` on; without it, they end together."""
    broadcast, axis = n.integer("broadcast", 0), n.integer("axis", -1)
    a, b = n.input(0), n.input(1)
    if not broadcast or axis < 0:
        return n
    behind = a.rank - axis - b.rank
    return _with_inputs(n, a, c.reshape(b, (*b.shape, *(1,) * behind)) if behind > 0 else b)


def _parametric(c: Context, n: Call) -> Call:
    """A slope of more than one element has one for each channel."""
    x, slope = n.input(0), n.input(1)
    if slope.rank == 1 and slope.shape[0] != 1 and x.rank > 2:
        slope = c.reshape(slope, (*slope.shape, *(1,) * (x.rank - 2)))
    return _with_inputs(n, x, slope)


def _gemm(_: Context, n: Call) -> Call:
    n.ignore("broadcast")
    return n


def _selu(_: Context, n: Call) -> Call:
    older = {"alpha": 1.6732, "gamma": 1.0507} if n.opset < 6 else {}
    return replace(n, attributes={**older, **n.attributes})


def _concat(_: Context, n: Call) -> Call:
    return replace(n, attributes={"axis": 1, **n.attributes}) if n.opset < 4 else n


def _reshape(c: Context, n: Call) -> Call:
    if n.opset >= 5:
        return n
    return _with_inputs(n, n.input(0), _constant(c, n.integers("shape")))


def _tile(c: Context, n: Call) -> Call:
    """So many tiles along one axis."""
    if n.opset >= 6:
        return n
    x = n.input(0)
    tiles, axis = (int(c.known_number(n.input(i), what)) for i, what in ((1, "the tiles"), (2, "the axis")))
    return _with_inputs(n, x, _constant(c, [tiles if i == axis % x.rank else 1 for i in range(x.rank)]))


def _pad(_: Context, n: Call) -> Call:
    if n.opset >= 2:
        return n
    others = {name: value for name, value in n.attributes.items() if name != "paddings"}
    return replace(n, attributes={**others, "pads": n.integers("paddings")})


def _split(c: Context, n: Call) -> Call:
    sizes = n.optional(1) if n.opset < 2 else None
    if sizes is None:
        return n
    known = c.known_ints(sizes, "the sizes of a split")
    return replace(n, inputs=(n.input(0),), attributes={**n.attributes, "split": known})


def _constant(c: Context, numbers: object) -> Tensor:
    return c.constant(np.asarray(numbers, np.int64))


def _batch(_: Context, n: Call) -> Call:
    """Unless it says that it is not being trained, the batch's own statistics count."""
    return replace(n, attributes={**n.attributes, "training_mode": 1 - n.integer("is_test", 0)})


def _power_pool(_: Context, n: Call) -> Call:
    """The power was written as a float."""
    power = n.number("p", 2.0)
    return replace(n, attributes={**n.attributes, "p": int(power) if power.is_integer() else power})


def _recurrent(_: Context, n: Call) -> Call:
    n.ignore("output_sequence")  # whether all steps are wanted is told by the names of the results
    return n


_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
_CHANGES: Mapping[str, _Change] = {
    **dict.fromkeys(_BINARY, _broadcast),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("LpPool", "GlobalLpPool"), _power_pool),
    "BatchNormalization": _batch,
    "Concat": _concat,
    "Gemm": _gemm,
    "PRelu": _parametric,
    "Pad": _pad,
    "Reshape": _reshape,
    "Selu": _selu,
    "Split": _split,
    "Tile": _tile,
}
# Their later versions only added element types, or attributes whose defaults are what they did before.
_ROUNDING = ("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Sqrt", "Exp", "Log")
_ACTIVATIONS = ("Clip", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_OTHERS = ("AveragePool", "Cast", "Dropout", "InstanceNormalization", "Max", "Mean", "Min", "Sum")
_SAME = frozenset((*_ROUNDING, *_ACTIVATIONS, *_OTHERS))
