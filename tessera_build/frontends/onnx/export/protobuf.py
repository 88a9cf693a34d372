"""What a writer wrote, as protobuf and as files.

Takes a `Writer`; gives a `ModelProto`, or files. Invariant: equal graphs give equal bytes; a model of more than 2 GiB
has its weights in one file beside it, each on a page of its own, because protobuf holds no more.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
from onnx import helper, numpy_helper

from tessera_build.config import HostError
from tessera_build.frontends.onnx.errors import ModelError
from tessera_build.frontends.onnx.export.writer import CODES, Block, Port, Writer, Written
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph.nodes import Array

# The newest that onnxruntime 1.31 runs; onnx 1.23 itself knows opset 28 and IR version 14.
OPSET: Final = 26
IR_VERSION: Final = 13
LARGEST_FILE: Final = 2**31 - 2**20
_PAGE: Final = 4096
_SMALL: Final = 1024  # bytes of a weight that stays in the model whatever its size


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """A model apart from its weights, which together may be more than a protobuf holds."""

    model: onnx.ModelProto
    weights: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        """What the weights take."""
        return sum(array.nbytes for array in self.weights.values())

    def whole(self) -> onnx.ModelProto:
        """The model with its weights inside."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        copy.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.weights.items())
        return copy


def model_of(writer: Writer, name: str, facts: Mapping[str, str]) -> Exported:
    """The whole model; `facts` become its metadata."""
    graph = _graph(writer.root, writer.renamed)
    graph.name = name
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tessera",
    )
    helper.set_model_props(model, dict(facts))
    return Exported(model, dict(writer.weights.values()))


def _graph(block: Block, names: Mapping[str, str]) -> onnx.GraphProto:
    nodes = [_node(node, names) for node in block.nodes]
    inputs, outputs = ([_info(port, names) for port in ports] for ports in (block.inputs, block.outputs))
    return helper.make_graph(nodes, block.name, inputs, outputs)


def _node(node: Written, names: Mapping[str, str]) -> onnx.NodeProto:
    inputs, outputs = ([names.get(name, name) for name in side] for side in (node.inputs, node.outputs))
    while inputs and not inputs[-1]:
        inputs.pop()
    made = helper.make_node(node.op, inputs, outputs, outputs[0], doc_string=node.origin or None)
    for key, value in sorted(node.attributes.items()):
        made.attribute.append(helper.make_attribute(key, value))
    for key, block in node.graphs.items():
        made.attribute.append(helper.make_attribute(key, _graph(block, names)))
    return made


def _info(port: Port, names: Mapping[str, str]) -> onnx.ValueInfoProto:
    """Extents that are numbers or expressions; in a loop's graph those may change from turn to turn."""
    shape = [extent if isinstance(extent, int) else str(extent) for extent in port.type.shape]
    return helper.make_tensor_value_info(names.get(port.name, port.name), CODES[port.type.dtype.name], shape)


def check_onnx(path: str | Path) -> None:
    """Ask onnx's own checker, shape inference included; what it refuses is a defect of the export."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError("BAD_MODEL", "onnx's checker refuses the export", where=str(path), found=str(error)) from error


def write_onnx(made: Exported, path: str | Path, largest: int = LARGEST_FILE) -> None:
    """Write the model to a file; above `largest` bytes its weights go into `<path>.data`."""
    out = Path(path)
    try:
        with _draft(out) as draft:
            beside = made.bytes > largest
            model = _with_weights_beside(made, out.with_name(out.name + ".data")) if beside else made.whole()
            draft.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError("OUTPUT_UNWRITABLE", f"the model cannot be written: {reason}", where=str(out)) from error


@contextmanager
def _draft(path: Path) -> Generator[Path]:
    """A file that takes the place of another when it is whole: the weights may be mapped from the one that is there."""
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _with_weights_beside(made: Exported, data: Path) -> onnx.ModelProto:
    """The model with the large weights in a file, in their order, each from the start of a page."""
    copy = onnx.ModelProto()
    copy.CopyFrom(made.model)
    with _draft(data) as draft, draft.open("wb") as file:
        for name, array in made.weights.items():
            if array.nbytes <= _SMALL or dtype_of(array.dtype).bits < 8:
                copy.graph.initializer.append(numpy_helper.from_array(array, name))
                continue
            file.write(b"\0" * (-file.tell() % _PAGE))
            tensor = copy.graph.initializer.add(
                name=name, dims=array.shape, data_type=CODES[dtype_of(array.dtype).name], data_location="EXTERNAL"
            )
            for key, value in {"location": data.name, "offset": file.tell(), "length": array.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return copy
