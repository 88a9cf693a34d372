"""Reads ONNX models into Graph IR: the only room that knows the onnx package.

Takes a path or a `ModelProto`; gives a `Module`. Invariant: a model is translated wholly and exactly, or refused with
every reason at once.
"""

from tessera_build.frontends.onnx.errors import ModelError, UnsupportedError
from tessera_build.frontends.onnx.reader import Imported, Surveyed, import_onnx, read_onnx, survey_onnx
from tessera_build.frontends.onnx.trainable import Trainable, read_named, read_trainable

__all__ = [
    "Imported",
    "ModelError",
    "Surveyed",
    "Trainable",
    "UnsupportedError",
    "import_onnx",
    "read_named",
    "read_onnx",
    "read_trainable",
    "survey_onnx",
]
