"""Changes that ask for a lot with a few bytes: functions that double, loops without end, constants of odd numbers.

Takes a sound model and a generator of random numbers; changes the model in place. Invariant: the same numbers make the
same change.
"""

from __future__ import annotations

import math
import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TRIPS = (0, 1, 3, 1000, 2**31, 2**62, -1)
_ODD = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, 2**40, 2**62, -(2**63))
_NUMPY_TYPES = (1, 2, 3, 5, 6, 7, 9, 10, 11)
_LARGEST = 1 << 16  # elements of an input that becomes a constant


def functions(model: onnx.ModelProto, generator: random.Random) -> None:
    """Functions that call each other twice, themselves, or with operands that they do not have."""
    if not model.graph.input:
        return
    opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
    levels = generator.choice((1, 4, 10, 60, 300))
    for i in range(levels):
        inner = f"f{i - 1}" if i else generator.choice(("Relu", "Relu", f"f{levels - 1}"))
        domain = "own" if inner.startswith("f") else ""
        operands = ["x"] * generator.choice((1, 1, 1, 1, 1, 1, 3))
        first = helper.make_node(inner, operands, ["t"], domain=domain)
        second = helper.make_node(inner, ["t"], ["y"], domain=domain)
        model.functions.append(helper.make_function("own", f"f{i}", ["x"], ["y"], [first, second], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    called = helper.make_node(f"f{levels - 1}", [model.graph.input[0].name], ["called"], domain="own")
    model.graph.node.append(called)
    model.graph.output.add().name = "called"


def loop(model: onnx.ModelProto, generator: random.Random) -> None:
    """A Loop of any number of iterations whose carried value grows, stays or is stacked; perhaps two of them nested."""
    if not model.graph.input:
        return
    carried = model.graph.input[0].name
    kind = generator.choice(("Neg", "Grow", "Stack", "Nest"))
    graph = _body("b", kind)
    if kind == "Nest":
        inner = helper.make_node("Loop", ["trips", "", "b_in"], ["b_out"], body=_body("n", "Neg"))
        graph.node[0].CopyFrom(inner)
    trips = numpy_helper.from_array(np.asarray(generator.choice(_TRIPS), np.int64), "trips")
    model.graph.initializer.append(trips)
    results = ["looped"] + (["stacked"] if kind == "Stack" else [])
    model.graph.node.append(helper.make_node("Loop", ["trips", "", carried], results, body=graph))
    for name in results:
        model.graph.output.add().name = name


def _body(prefix: str, kind: str) -> onnx.GraphProto:
    value = f"{prefix}_in"
    node = helper.make_node("Neg", [value], [f"{prefix}_out"])
    if kind == "Grow":
        node = helper.make_node("Concat", [value, value], [f"{prefix}_out"], axis=0)
    again = helper.make_node("Identity", [f"{prefix}_going"], [f"{prefix}_again"])
    inputs = [
        helper.make_tensor_value_info(f"{prefix}_i", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"{prefix}_going", TensorProto.BOOL, []),
        onnx.ValueInfoProto(name=value),
    ]
    names = [f"{prefix}_again", f"{prefix}_out", *([f"{prefix}_out"] if kind == "Stack" else [])]
    return helper.make_graph([node, again], prefix, inputs, [onnx.ValueInfoProto(name=n) for n in names])


def constant_input(model: onnx.ModelProto, generator: random.Random) -> None:
    """What the caller gives becomes a part of the model, with numbers that no one would give."""
    infos = [i for i in model.graph.input if i.type.HasField("tensor_type")]
    if not infos:
        return
    info = generator.choice(infos)
    kind = info.type.tensor_type
    shape = [d.dim_value or generator.choice((0, 1, 2, 5)) for d in kind.shape.dim]
    if kind.elem_type not in _NUMPY_TYPES or min(shape, default=0) < 0 or math.prod(shape) > _LARGEST:
        return
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    numbers = [generator.choice(_ODD) for _ in range(math.prod(shape))]
    with np.errstate(all="ignore"):
        tensor = numpy_helper.from_array(np.asarray(numbers, np.int64).astype(dtype), info.name)
    tensor.dims[:] = shape  # there may be more axes than numpy has
    model.graph.initializer.append(tensor)
    if generator.random() < 0.9:
        model.graph.input.remove(info)


def rewired(model: onnx.ModelProto, generator: random.Random) -> None:
    """An operand left out, doubled, or another one; a node twice, or none."""
    if not model.graph.node:
        return
    node = generator.choice(list(model.graph.node))
    kind = generator.randrange(5)
    names = [*(i.name for i in model.graph.input), *(o for n in model.graph.node for o in n.output)]
    if kind == 0 and node.input:
        node.input[generator.randrange(len(node.input))] = ""
    elif kind == 1 and node.input:
        node.input.append(generator.choice(list(node.input)))
    elif kind == 2 and node.input:
        node.input[generator.randrange(len(node.input))] = generator.choice(names)
    elif kind == 3:
        model.graph.node.append(node)
    else:
        model.graph.node.remove(node)


def small_numbers(model: onnx.ModelProto, generator: random.Random) -> None:
    """Attributes and extents a little beside what they were."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.INT and generator.random() < 0.5:
                attribute.i = generator.randrange(-3, 9)
            for index in range(len(attribute.ints)):
                if generator.random() < 0.3:
                    attribute.ints[index] = generator.randrange(-3, 9)
    for info in model.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if generator.random() < 0.2:
                dim.dim_value = generator.randrange(0, 9)
        if generator.random() < 0.1:
            info.type.tensor_type.elem_type = generator.randrange(0, 24)
