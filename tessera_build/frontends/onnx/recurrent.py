"""LSTM, GRU and RNN: the inputs' product over all steps at once, then a loop whose body is one small step.

Takes calls; gives results in ONNX's order of axes. Invariant: a step reads of the sequence only its own row of the
inputs' product, so that what can be done for all steps together is done outside the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tessera_build.frontends.onnx.activations import Activation, activations
from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.elementwise import clipped
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.loops import element, recurrence
from tessera_build.ir.core.dims import Extent

State = tuple[Tensor, ...]
# One step: the step's row of the inputs' product and the state; the first of the new state is the output.
Cell = Callable[[Context, Tensor, State], State]
# How a tensor is multiplied by weights that are at hand; and how the weights at an operand's place, of a direction, get
# there.
Multiply = Callable[[Context, Tensor], Tensor]
Multiplier = Callable[[Context, "Layer", int, int], Multiply]


@dataclass(frozen=True, slots=True)
class Layer:
    """What all directions of a layer share; `x` is [steps, batch, features]."""

    call: Call
    x: Tensor
    hidden: int
    gates: int
    reverse: tuple[bool, ...]
    functions: tuple[tuple[Activation, ...], ...]
    lengths: Tensor | None
    batch_first: bool

    def part(self, c: Context, index: int, direction: int, shape: Sequence[Extent]) -> Tensor | None:
        """A direction's part of an operand that has the directions as its first axis."""
        operand = self.call.optional(index)
        if operand is None:
            return None
        wanted = (len(self.reverse), *shape)
        if len(wanted) != operand.rank:
            raise ill_formed(f"operand {index} of {self.call.op} has another rank", found=str(operand.type))
        for axis, (own, extent) in enumerate(zip(operand.shape, wanted, strict=True)):
            c.unify(extent, own, f"operand {index} of {self.call.op} has another extent at axis {axis}")
        return c.fitted(element(c, operand, 0, direction), shape)

    def state(self, c: Context, index: int, direction: int) -> Tensor:
        """An initial state, [batch, hidden]; zeros where none is given."""
        shape = (self.x.shape[1], self.hidden)
        given = self.call.optional(index)
        if given is None:
            return c.broadcast_to(c.scalar(0, self.x.dtype), shape)
        if self.batch_first:
            given = c.transpose(given, (1, 0, 2))
        for own, extent in zip(given.shape, (len(self.reverse), *shape), strict=True):
            c.unify(extent, own, f"an initial state of {self.call.op} has another shape")
        return c.fitted(element(c, given, 0, direction), shape)


def _layer(c: Context, n: Call, gates: int, defaults: Sequence[str]) -> Layer:
    x = n.input(0)
    batch_first = n.integer("layout", 0) == 1
    if batch_first:
        x = c.transpose(x, (1, 0, 2))
    word = n.text("direction", "forward")
    ways = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if word not in ways or x.rank != 3:
        raise ill_formed(f"{n.op} has an unknown direction or no sequence", found=f"{word}, {x.type}")
    count = len(defaults)
    names = n.words("activations", tuple(defaults) * len(ways[word]))
    if len(names) != count * len(ways[word]):
        raise ill_formed(f"{n.op} has {len(names)} activations", expected=f"{count} for each direction")
    functions = activations(names, n.numbers("activation_alpha", ()), n.numbers("activation_beta", ()))
    grouped = tuple(functions[i : i + count] for i in range(0, len(functions), count))
    width = n.input(2).shape[-1]
    hidden = n.integer("hidden_size", width if isinstance(width, int) else 0)
    if hidden <= 0:
        raise unsupported(f"the size of {n.op}'s state is not known", found=str(n.input(2).type))
    return Layer(n, x, hidden, gates, ways[word], grouped, n.optional(4), batch_first)


def _run(c: Context, layer: Layer, states: Sequence[int], cell: Callable[[int], tuple[Tensor, Cell]]) -> State:
    """All directions; `states` are the operands of the initial state, `cell` gives a direction's inputs and step."""
    n, ends = layer.call, list[State]()
    for direction, downward in enumerate(layer.reverse):
        inputs, advance = cell(direction)
        initial = [layer.state(c, index, direction) for index in states]

        def step(position: Extent, state: State, rows: Tensor = inputs, cell: Cell = advance) -> State:
            new = cell(c, element(c, rows, 0, position), state)
            if layer.lengths is None:
                return (*new, *([new[0]] if n.wants(0) else []))
            runs = c.op(
                "lt", c.number(position, layer.lengths.dtype), c.reshape(layer.lengths, (*layer.lengths.shape, 1))
            )
            kept = tuple(c.op("select", runs, after, before) for after, before in zip(new, state, strict=True))
            ended = c.op("select", runs, new[0], c.scalar(0, layer.x.dtype))
            return (*kept, *([ended] if n.wants(0) else []))

        ends.append(recurrence(c, layer.x.shape[0], initial, step, downward=downward))
    finals = [_joined(c, [end[i] for end in ends], 0) for i in range(len(states))]
    if layer.batch_first:
        finals = [c.transpose(x, (1, 0, 2)) for x in finals]
    if not n.wants(0):
        return (finals[0], *finals)  # nobody reads the first
    every = _joined(c, [end[-1] for end in ends], 1)
    return (c.transpose(every, (2, 0, 1, 3)) if layer.batch_first else every, *finals)


def _joined(c: Context, parts: Sequence[Tensor], axis: int) -> Tensor:
    """One tensor of all directions, which become an axis."""
    rows = [c.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:])) for x in parts]
    return rows[0] if len(rows) == 1 else c.op("concat", *rows, axis=axis)


def _inputs(c: Context, layer: Layer, direction: int, bias: Tensor | None) -> Tensor:
    """x W^T + bias for all steps: [steps, batch, gates * hidden]."""
    rows = layer.gates * layer.hidden
    weights = layer.part(c, 1, direction, (rows, layer.x.shape[2]))
    if weights is None:
        raise ill_formed("a recurrent layer has no weights", expected="W and R")
    product = c.op("matmul", layer.x, weights, transpose_b=True)
    return product if bias is None else c.op("add", product, bias)


def _recurrent(c: Context, layer: Layer, direction: int) -> Tensor:
    """The recurrent weights, [gates * hidden, hidden]."""
    found = layer.part(c, 2, direction, (layer.gates * layer.hidden, layer.hidden))
    assert found is not None
    return found


def _biases(c: Context, layer: Layer, direction: int) -> tuple[Tensor, Tensor] | None:
    """The biases of the inputs' and of the recurrent product."""
    rows = layer.gates * layer.hidden
    both = layer.part(c, 3, direction, (2 * rows,))
    return None if both is None else (c.slice(both, (0,), (rows,)), c.slice(both, (rows,), (2 * rows,)))


def _gate(c: Context, layer: Layer, x: Tensor, number: int) -> Tensor:
    """The columns of one gate."""
    starts = [0] * (x.rank - 1) + [number * layer.hidden]
    return c.slice(x, starts, [*x.shape[:-1], (number + 1) * layer.hidden])


def _by_rows(c: Context, layer: Layer, index: int, direction: int) -> Multiply:
    """Multiplication by the weights at an operand's place, [gates * hidden, features]."""
    width = layer.x.shape[2] if index == 1 else layer.hidden
    weights = layer.part(c, index, direction, (layer.gates * layer.hidden, width))
    if weights is None:
        raise ill_formed("a recurrent layer has no weights", expected="W and R")
    return lambda c, x: _product(c, x, weights)


def _product(c: Context, state: Tensor, weights: Tensor) -> Tensor:
    return c.op("matmul", state, weights, transpose_b=True)


def _clip(n: Call) -> Activation:
    """The limit on what goes into an activation."""
    limit = n.number("clip", 0.0)
    if limit <= 0:
        return lambda _, x: x
    return lambda c, x: clipped(c, x, c.scalar(-limit, x.dtype), c.scalar(limit, x.dtype))


# -- the three layers -------------------------------------------------------------------------------------------------


def _rnn(c: Context, n: Call) -> State:
    layer, clip = _layer(c, n, 1, ("Tanh",)), _clip(n)

    def cell(direction: int) -> tuple[Tensor, Cell]:
        biases, weights = _biases(c, layer, direction), _recurrent(c, layer, direction)
        (activate,) = layer.functions[direction]
        bias = None if biases is None else c.op("add", *biases)
        inputs = _inputs(c, layer, direction, bias)
        return inputs, lambda c, row, state: (activate(c, clip(c, c.op("add", _product(c, state[0], weights), row))),)

    return _run(c, layer, (5,), cell)


def _gru(c: Context, n: Call) -> State:
    layer, clip = _layer(c, n, 3, ("Sigmoid", "Tanh")), _clip(n)
    linear = n.integer("linear_before_reset", 0) != 0
    make = _gru_after if linear else _gru_before
    return _run(c, layer, (5,), lambda direction: make(c, layer, direction, clip))


def _gru_before(c: Context, layer: Layer, direction: int, clip: Activation) -> tuple[Tensor, Cell]:
    """The reset gate scales the state before its product: two products a step."""
    biases, weights = _biases(c, layer, direction), _recurrent(c, layer, direction)
    inputs = _inputs(c, layer, direction, None if biases is None else c.op("add", *biases))
    size, (gate, activate) = layer.hidden, layer.functions[direction]
    first = c.slice(weights, (0, 0), (2 * size, size))
    last = c.slice(weights, (2 * size, 0), (3 * size, size))

    def advance(c: Context, row: Tensor, state: State) -> State:
        (h,) = state
        both = c.slice(row, (0, 0), (row.shape[0], 2 * size))
        gates = c.op("add", _product(c, h, first), both)
        update, reset = (gate(c, clip(c, _gate(c, layer, gates, i))) for i in range(2))
        fresh = c.op("add", _product(c, c.op("mul", reset, h), last), _gate(c, layer, row, 2))
        return (_blend(c, update, activate(c, clip(c, fresh)), h),)

    return inputs, advance


def _gru_after(c: Context, layer: Layer, direction: int, clip: Activation) -> tuple[Tensor, Cell]:
    """The reset gate scales the state's product: one product a step, with a bias of its own."""
    biases, weights = _biases(c, layer, direction), _recurrent(c, layer, direction)
    gate, activate = layer.functions[direction]
    inputs = _inputs(c, layer, direction, None if biases is None else biases[0])

    def advance(c: Context, row: Tensor, state: State) -> State:
        (h,) = state
        product = _product(c, h, weights)
        product = product if biases is None else c.op("add", product, biases[1])
        update, reset = (
            gate(c, clip(c, c.op("add", _gate(c, layer, product, i), _gate(c, layer, row, i)))) for i in range(2)
        )
        fresh = c.op("add", c.op("mul", reset, _gate(c, layer, product, 2)), _gate(c, layer, row, 2))
        return (_blend(c, update, activate(c, clip(c, fresh)), h),)

    return inputs, advance


def _blend(c: Context, update: Tensor, fresh: Tensor, h: Tensor) -> Tensor:
    """(1 - z) * fresh + z * h."""
    return c.op("add", c.op("mul", c.op("sub", c.scalar(1, h.dtype), update), fresh), c.op("mul", update, h))


def lstm(c: Context, n: Call, multiplier: Multiplier = _by_rows) -> State:
    """An LSTM; `multiplier` says how a direction's weights are multiplied by."""
    layer, clip = _layer(c, n, 4, ("Sigmoid", "Tanh", "Tanh")), _clip(n)
    coupled = n.integer("input_forget", 0) != 0

    def cell(direction: int) -> tuple[Tensor, Cell]:
        biases, multiply = _biases(c, layer, direction), multiplier(c, layer, 2, direction)
        peepholes = layer.part(c, 7, direction, (3 * layer.hidden,))
        inputs = multiplier(c, layer, 1, direction)(c, layer.x)
        inputs = inputs if biases is None else c.op("add", inputs, c.op("add", *biases))
        step = _LstmCell(layer, multiply, peepholes, (direction, coupled), clip)
        return inputs, step.advance

    return _run(c, layer, (5, 6), cell)


@dataclass(frozen=True, slots=True)
class _LstmCell:
    """One direction of an LSTM: gates stand in the order input, output, forget, cell; peepholes without the last."""

    layer: Layer
    multiply: Multiply
    peepholes: Tensor | None
    way: tuple[int, bool]
    clip: Activation

    def advance(self, c: Context, row: Tensor, state: State) -> State:
        """(h, c) after one step."""
        h, cell = state
        direction, coupled = self.way
        gate, activate, squash = self.layer.functions[direction]
        gates = c.op("add", self.multiply(c, h), row)
        parts = [_gate(c, self.layer, gates, i) for i in range(4)]
        take = gate(c, self.clip(c, self._peeped(c, parts[0], 0, cell)))
        forget = c.op("sub", c.scalar(1, h.dtype), take) if coupled else None
        forget = forget or gate(c, self.clip(c, self._peeped(c, parts[2], 2, cell)))
        fresh = activate(c, self.clip(c, parts[3]))
        new = c.op("add", c.op("mul", forget, cell), c.op("mul", take, fresh))
        give = gate(c, self.clip(c, self._peeped(c, parts[1], 1, new)))
        return c.op("mul", give, squash(c, new)), new

    def _peeped(self, c: Context, x: Tensor, number: int, cell: Tensor) -> Tensor:
        if self.peepholes is None:
            return x
        size = self.layer.hidden
        weights = c.slice(self.peepholes, (number * size,), ((number + 1) * size,))
        return c.op("add", x, c.op("mul", weights, cell))


RECURRENT_OPERATORS: Mapping[str, Translator] = {"LSTM": lstm, "GRU": _gru, "RNN": _rnn}
