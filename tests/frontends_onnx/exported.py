"""Runs models by way of an export: import, export, onnx's checker, onnxruntime.

Takes models and arrays; gives arrays. Invariant: onnxruntime reads the bytes that would be written to a file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.checker
import onnxruntime

from tessera_build.frontends.onnx import read_onnx
from tessera_build.frontends.onnx.export import as_plain, export_onnx, with_plain_ports
from tessera_build.ir.core.types import DTYPES
from tessera_build.ir.graph.nodes import Array, Module


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A quiet session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    data = model.SerializeToString(deterministic=True)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_exported(module: Module, entry: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime gives for the exported entry, in the types that the entry states."""
    model = export_onnx(module, entry)
    onnx.checker.check_model(model, full_check=True)
    session = session_of(with_plain_ports(model))
    feeds = {port.name: as_plain(np.asarray(inputs[port.name])) for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    types = [module.entries[entry].types[value] for value in module.entries[entry].results]
    wanted = zip(module.output_names[entry], types, strict=True)
    return {name: found[name].astype(DTYPES[type_.dtype.name].numpy) for name, type_ in wanted}


def round_trip(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """The outputs of an ONNX model by way of Graph IR and back; for `backend_suite.judge`."""
    found = run_exported(read_onnx(model), "main", inputs)
    return [found[port.name] for port in model.graph.output]
