"""Writes entries of Graph IR modules as ONNX models.

Takes a module and the name of an entry; gives a `ModelProto`, or a file. Invariant: standard operators of one operator
set alone, and the bytes are a function of the entry.
"""

from tessera_build.frontends.onnx.export.model import export_onnx, exported, named_apart
from tessera_build.frontends.onnx.export.ports import as_plain, with_plain_ports
from tessera_build.frontends.onnx.export.protobuf import OPSET, Exported, check_onnx, write_onnx

__all__ = [
    "OPSET",
    "Exported",
    "as_plain",
    "check_onnx",
    "export_onnx",
    "exported",
    "named_apart",
    "with_plain_ports",
    "write_onnx",
]
