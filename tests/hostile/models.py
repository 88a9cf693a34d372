"""Broken and hostile ONNX files, made from sound ones by seed.

Takes a seed; gives a folder's files: a mutated model and, sometimes, external data. Invariant: the same seed and the
same version of onnx give the same bytes.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper
from onnx.backend.test.case import node as node_cases

from tests.hostile import requests

ROOT = Path(__file__).parents[2]
_HUGE = (0, -1, 1, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), 65537)
_LARGEST = 1 << 18  # bytes of a source
_NAMES = ("", "x", "..", "/etc/passwd", "../../outside", "a" * 5000, "\u202e", "x\x00y", "CON", "a/b")
# Operators of every family, so that mutated attributes meet every translator.
_SOURCES = (
    "add", "conv_with_strides_padding", "maxpool_2d_pads", "gemm_all_attributes", "softmax_axis_1", "concat_2d_axis_0",
    "slice", "gather_0", "reduce_sum_keepdims_random", "layer_normalization_4d_axis1", "transpose_all_permutations_0",
    "reshape_reordered_all_dims", "pad", "expand_dim_changed", "tile", "resize_upsample_scales_nearest", "loop11",
    "if", "scan9_sum", "lstm_defaults", "nonmaxsuppression_suppress_by_IOU", "topk", "onehot_with_axis", "einsum_sum",
    "qlinearconv", "dequantizelinear_axis", "cast_FLOAT_to_FLOAT16", "constantofshape_float_ones",
    "range_float_type_positive_delta", "scatter_elements_with_axis",
    "split_equal_parts_2d", "unique_sorted_with_axis", "convtranspose", "attention_4d",
    "group_normalization_epsilon", "sequence_insert_at_back", "ai_onnx_ml_tree_ensemble_single_tree", "gru_defaults",
    "cumsum_1d", "gridsample", "where_example", "trilu_lower_4d", "hardmax_example",
    "averagepool_2d_pads_count_include_pad",
)  # fmt: skip


@cache
def _cases() -> dict[str, bytes]:
    """The node cases of the onnx package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for case in node_cases.collect_testcases(None) if case.model is not None]
    return {case.name: case.model.SerializeToString(deterministic=True) for case in cases}  # type: ignore[union-attr]


@cache
def sources() -> tuple[bytes, ...]:
    """Sound models: a node case of every family, and the network of the digits example."""
    made = [_cases()[f"test_{name}"] for name in _SOURCES if f"test_{name}" in _cases()]
    return (*made, (ROOT / "examples/digits/digits.onnx").read_bytes())


@cache
def all_sources() -> tuple[bytes, ...]:
    """Every node case."""
    return tuple(data for _, data in sorted(_cases().items()) if len(data) < _LARGEST)


def mutated(seed: int, folder: Path) -> Path:
    """A hostile model in `folder`."""
    generator = random.Random(seed)
    data = generator.choice(sources() if generator.random() < 0.5 else all_sources())
    if generator.random() < 0.3:
        data = _bytes_changed(data, generator)
    else:
        model = onnx.ModelProto.FromString(data)
        for _ in range(generator.choice((1, 1, 2, 3))):
            generator.choice(_STRUCTURAL)(model, generator)
        data = model.SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(data)
    (folder / "weights.bin").write_bytes(generator.randbytes(generator.choice((0, 16, 4096))))
    return path


def _bytes_changed(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        start = generator.randrange(len(changed)) if changed else 0
        stop = min(len(changed), start + generator.choice((1, 1, 1, 8, 100)))
        kind = generator.randrange(5)
        if kind == 0:
            del changed[start:stop]
        elif kind == 1:
            changed[start:start] = changed[start:stop]
        elif kind == 2:
            del changed[start:]
        elif kind == 3:
            changed[start:stop] = generator.randbytes(stop - start)
        elif changed:
            changed[start] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _messages(message: Message) -> list[Message]:
    """The message and all messages inside it."""
    found = [message]
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            inner = [value] if isinstance(value, Message) else list(value)
            found += [each for part in inner for each in _messages(part)]
    return found


def _any_field(model: onnx.ModelProto, generator: random.Random) -> None:
    """Another value in any field of any message."""
    message = generator.choice(_messages(model))
    fields = [(d, v) for d, v in message.ListFields() if d.message_type is None]
    if not fields:
        return
    descriptor, value = generator.choice(fields)
    if isinstance(value, (int, float, str, bytes)):
        _set(message, descriptor.name, _other(value, generator))
    elif len(value):
        index = generator.randrange(len(value))
        try:
            value[index] = _other(value[index], generator)
        except (ValueError, TypeError, OverflowError):
            del value[index]


def _set(message: Message, name: str, value: object) -> None:
    try:
        setattr(message, name, value)
    except (ValueError, TypeError, OverflowError):
        message.ClearField(name)


def _other(value: object, generator: random.Random) -> object:
    if isinstance(value, str):
        return generator.choice(_NAMES)
    if isinstance(value, bytes):
        return generator.choice((b"", value[:-1], value * 2, b"\xff\xfe" * 9, b"SAME_UPPER"))
    if isinstance(value, float):
        return generator.choice((0.0, -1.0, 1e38, float("inf"), float("nan"), 1e-45))
    return generator.choice((*_HUGE, generator.randrange(64)))


def _cycle(model: onnx.ModelProto, generator: random.Random) -> None:
    """Wires between any two nodes, backwards too."""
    nodes = [n for n in model.graph.node if n.output]
    if nodes:
        reader, maker = generator.choice(nodes), generator.choice(nodes)
        if reader.input:
            reader.input[generator.randrange(len(reader.input))] = generator.choice(list(maker.output))


def _other_operator(model: onnx.ModelProto, generator: random.Random) -> None:
    names = sorted({s.name for s in onnx.defs.get_all_schemas()})
    if model.graph.node:
        generator.choice(list(model.graph.node)).op_type = generator.choice(names)


def _external(model: onnx.ModelProto, generator: random.Random) -> None:
    """Weights that lie in files, some of them where none may be."""
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type = generator.choice(("w", "x")), TensorProto.FLOAT
    tensor.dims.extend(generator.choice(([4], [2**40], [-1], [1024], [0], [2**32, 2**32])))
    tensor.data_location = TensorProto.EXTERNAL
    places = ("weights.bin", "../weights.bin", "/etc/passwd", "/dev/zero", ".", "", "none.bin", "weights.bin\x00")
    entries = {"location": generator.choice(places)}
    if generator.random() < 0.5:
        entries |= {"offset": str(generator.choice(_HUGE)), "length": generator.choice(("16", "x", "-4", str(2**62)))}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if model.graph.input:
        model.graph.node.append(helper.make_node("Add", [model.graph.input[0].name, tensor.name], ["sum"]))
        model.graph.output.add().name = "sum"


def _absurd_shape(model: onnx.ModelProto, generator: random.Random) -> None:
    infos = [*model.graph.input, *model.graph.output]
    if infos:
        shape = generator.choice(infos).type.tensor_type.shape
        for dim in shape.dim:
            if generator.random() < 0.5:
                dim.dim_value = generator.choice(_HUGE)
        if generator.random() < 0.2:
            shape.dim.extend([onnx.TensorShapeProto.Dimension(dim_value=2)] * generator.choice((1, 70, 3000)))


def _bomb(model: onnx.ModelProto, generator: random.Random) -> None:
    """A few bytes that ask for a value of any size: repeated, expanded, filled or counted up."""
    name = f"bomb{len(model.graph.node)}"
    size = generator.choice((2**20, 2**33, 2**50, 2**62))
    shape = helper.make_tensor(f"{name}s", TensorProto.INT64, [2], [size, generator.choice((1, 2**20))])
    model.graph.initializer.append(shape)
    kind = generator.choice(("ConstantOfShape", "Expand", "Tile", "Chain"))
    if kind == "ConstantOfShape":
        model.graph.node.append(helper.make_node(kind, [f"{name}s"], [name]))
    else:
        model.graph.initializer.append(helper.make_tensor(f"{name}o", TensorProto.FLOAT, [1, 1], [1.0]))
        if kind == "Chain":  # each node doubles a constant
            model.graph.node.append(helper.make_node("Concat", [f"{name}o"] * 2, [f"{name}0"], axis=0))
            for step in range(60):
                nodes = helper.make_node("Concat", [f"{name}{step}"] * 2, [f"{name}{step + 1}"], axis=0)
                model.graph.node.append(nodes)
            model.graph.node.append(helper.make_node("Identity", [f"{name}60"], [name]))
        else:
            model.graph.node.append(helper.make_node(kind, [f"{name}o", f"{name}s"], [name]))
    model.graph.output.add().CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _deep(model: onnx.ModelProto, generator: random.Random) -> None:
    """Thousands of nodes in a row, or subgraphs inside subgraphs."""
    if not model.graph.input:
        return
    name = model.graph.input[0].name
    if generator.random() < 0.5:
        for index in range(generator.choice((50, 1500))):
            model.graph.node.append(helper.make_node("Relu", [name], [f"deep{index}"]))
            name = f"deep{index}"
    else:
        graph = helper.make_graph([helper.make_node("Identity", [name], ["inner"])], "g", [], [])
        graph.output.add().name = "inner"
        for level in range(generator.choice((5, 40))):
            node = helper.make_node("If", [name], [f"level{level}"], then_branch=graph, else_branch=graph)
            graph = helper.make_graph([node], "g", [], [])
            graph.output.add().name = f"level{level}"
            if graph.ByteSize() > 1 << 20:
                break
        model.graph.node.extend(graph.node)
        name = graph.output[0].name
    model.graph.output.add().name = name


_STRUCTURAL: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _any_field, _any_field, _any_field, _any_field, _cycle, _other_operator, _external, _absurd_shape, _bomb, _deep,
    requests.functions, requests.loop, requests.constant_input, requests.constant_input, requests.rewired,
    requests.small_numbers, requests.small_numbers, requests.small_numbers,
)  # fmt: skip
