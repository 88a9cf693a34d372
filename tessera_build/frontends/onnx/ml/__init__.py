"""The operators of the domain ai.onnx.ml that deal in numbers; strings are refused.

Takes the families' tables; gives `ML_OPERATORS`. Invariant: every result is that of onnxruntime, which settles what
the specification leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.call import Translator
from tessera_build.frontends.onnx.ml.features import FEATURE_OPERATORS
from tessera_build.frontends.onnx.ml.labels import LABEL_OPERATORS
from tessera_build.frontends.onnx.ml.linear import LINEAR_OPERATORS
from tessera_build.frontends.onnx.ml.support_vectors import SUPPORT_VECTOR_OPERATORS
from tessera_build.frontends.onnx.ml.trees import TREE_OPERATORS

ML_OPERATORS: Mapping[str, Translator] = {
    **FEATURE_OPERATORS,
    **LABEL_OPERATORS,
    **LINEAR_OPERATORS,
    **SUPPORT_VECTOR_OPERATORS,
    **TREE_OPERATORS,
}
