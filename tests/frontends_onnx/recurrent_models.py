"""LSTM, GRU and RNN in every direction, with every option, drawn by seed.

Takes a seed; gives a model with inputs. Invariant: onnxruntime runs every model that is drawn and is right, so what it
does not build (batch first) or leaves open (activations without their parameters) is not drawn, and Softplus, which
overflows there, only where nothing grows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tessera_build.ir.graph.nodes import Array

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# Activations with the number of their parameters.
ACTIVATIONS = {
    "Relu": 0, "Tanh": 0, "Sigmoid": 0, "Softsign": 0, "Softplus": 0, "LeakyRelu": 1, "ThresholdedRelu": 1, "Elu": 1,
    "Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecurrentCase:
    """A model of one layer, and one set of inputs."""

    model: onnx.ModelProto
    inputs: dict[str, Array]


@dataclass(slots=True)
class _Draw:
    """One layer while it is drawn."""

    op: str
    rng: np.random.Generator
    values: dict[str, Array] = field(default_factory=dict[str, Array])
    operands: list[str] = field(default_factory=list[str])

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def operand(self, name: str, value: Array, probability: float = 1.0) -> None:
        """Append an operand, or leave it out."""
        there = self.chance(probability)
        self.operands.append(name if there else "")
        if there:
            self.values[name] = value

    def floats(self, *shape: int) -> Array:
        return (self.rng.standard_normal(shape) * 0.5).astype(np.float32)

    def attributes(self, directions: int) -> dict[str, object]:
        found: dict[str, object] = {}
        if self.chance(0.5):
            known = [name for name in ACTIVATIONS if name != "Softplus" or self.op == "RNN"]
            names = [str(self.rng.choice(known)) for _ in range(FUNCTIONS[self.op] * directions)]
            counts = [ACTIVATIONS[name] for name in names]
            found["activations"] = names
            for parameter, needs in (("alpha", 1), ("beta", 2)):
                listed = [float(self.rng.uniform(0.1, 0.6)) for count in counts if count >= needs]
                found |= {f"activation_{parameter}": listed} if listed else {}
        if self.chance(0.3):
            found["clip"] = float(self.rng.uniform(0.2, 1.5))
        if self.op == "GRU" and self.chance(0.5):
            found["linear_before_reset"] = 1
        if self.op == "LSTM" and self.chance(0.2):
            found["input_forget"] = 1
        return found


def draw(op: str, direction: str, seed: int) -> RecurrentCase:
    """A layer of this kind."""
    made, directions = _Draw(op, np.random.default_rng(seed)), 2 if direction == "bidirectional" else 1
    steps, batch, features, hidden = (
        int(made.rng.integers(low, high)) for low, high in ((1, 6), (1, 4), (1, 6), (1, 20))
    )
    rows = GATES[op] * hidden
    made.operand("X", made.floats(steps, batch, features))
    made.operand("W", made.floats(directions, rows, features))
    made.operand("R", made.floats(directions, rows, hidden))
    made.operand("B", made.floats(directions, 2 * rows), 0.7)
    made.operand("lengths", made.rng.integers(1, steps + 1, batch).astype(np.int32), 0.4)
    made.operand("h", made.floats(directions, batch, hidden), 0.5)
    if op == "LSTM":
        made.operand("c", made.floats(directions, batch, hidden), 0.5)
        made.operand("P", made.floats(directions, 3 * hidden), 0.3)
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    attributes = made.attributes(directions)
    node = helper.make_node(op, made.operands, outputs, hidden_size=hidden, direction=direction)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return _case(made, node, dynamic=made.chance(0.5))


def _case(made: _Draw, node: onnx.NodeProto, *, dynamic: bool) -> RecurrentCase:
    """Sequence and states are inputs, of any length and batch if `dynamic`; the rest are weights."""
    names = {"X": ("S", "B", None), "h": (None, "B", None), "c": (None, "B", None), "lengths": ("B",)}
    inputs = {name: made.values[name] for name in names if name in made.values}
    infos = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            [(dynamic and symbol) or size for symbol, size in zip(names[name], array.shape, strict=True)],
        )
        for name, array in inputs.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in node.output]
    weights = [numpy_helper.from_array(array, name) for name, array in made.values.items() if name not in inputs]
    graph = helper.make_graph([node], "layer", infos, results, weights)
    opset = int(made.rng.choice([8, 11, 14, 17]))
    return RecurrentCase(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), inputs)
