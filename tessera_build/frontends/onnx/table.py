"""The one table of ONNX operators, and what to say about those that are not in it.

Takes the families' tables; gives `OPERATORS` (domain and name to translator) and `HINTS` (name to the nearest rewrite).
Invariant: an operator is in at most one family, and ONNX's default domain is always spelt "".
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.frontends.onnx.attention import ATTENTION_OPERATORS
from tessera_build.frontends.onnx.blocks import BLOCK_OPERATORS
from tessera_build.frontends.onnx.call import Translator
from tessera_build.frontends.onnx.casting import CASTING_OPERATORS
from tessera_build.frontends.onnx.contraction import CONTRACTION_OPERATORS
from tessera_build.frontends.onnx.contrib import BORROWED_OPERATORS, CONTRIB_OPERATORS
from tessera_build.frontends.onnx.contrib_attention import CONTRIB_ATTENTION_OPERATORS
from tessera_build.frontends.onnx.contrib_gates import CONTRIB_GATE_OPERATORS
from tessera_build.frontends.onnx.contrib_integers import CONTRIB_INTEGER_OPERATORS
from tessera_build.frontends.onnx.contrib_others import CONTRIB_OTHER_OPERATORS
from tessera_build.frontends.onnx.contrib_quantised import CONTRIB_QUANTISED_OPERATORS
from tessera_build.frontends.onnx.contrib_recurrent import CONTRIB_RECURRENT_OPERATORS
from tessera_build.frontends.onnx.control import CONTROL_OPERATORS
from tessera_build.frontends.onnx.counted import COUNTED_OPERATORS
from tessera_build.frontends.onnx.einsum import EINSUM_OPERATORS
from tessera_build.frontends.onnx.elementwise import ELEMENTWISE_OPERATORS
from tessera_build.frontends.onnx.experimental import EXPERIMENTAL_OPERATORS
from tessera_build.frontends.onnx.fourier import FOURIER_OPERATORS
from tessera_build.frontends.onnx.grams import GRAM_OPERATORS
from tessera_build.frontends.onnx.grids import GRID_OPERATORS
from tessera_build.frontends.onnx.indexing import INDEXING_OPERATORS
from tessera_build.frontends.onnx.matrices import CONTRIB_MATRIX_OPERATORS, MATRIX_OPERATORS
from tessera_build.frontends.onnx.ml import ML_OPERATORS
from tessera_build.frontends.onnx.movement import MOVEMENT_OPERATORS
from tessera_build.frontends.onnx.normalisation import NORMALISATION_OPERATORS
from tessera_build.frontends.onnx.older import of_any_age
from tessera_build.frontends.onnx.padding import PADDING_OPERATORS
from tessera_build.frontends.onnx.pooling import POOLING_OPERATORS
from tessera_build.frontends.onnx.precision import ROUNDED_ONCE, rounded_once
from tessera_build.frontends.onnx.quantised import QUANTISED_OPERATORS
from tessera_build.frontends.onnx.random import RANDOM_OPERATORS
from tessera_build.frontends.onnx.recurrent import RECURRENT_OPERATORS
from tessera_build.frontends.onnx.reductions import REDUCTION_OPERATORS
from tessera_build.frontends.onnx.regions import CONTRIB_REGION_OPERATORS, REGION_OPERATORS
from tessera_build.frontends.onnx.resize import RESIZE_OPERATORS
from tessera_build.frontends.onnx.scatter import SCATTER_OPERATORS
from tessera_build.frontends.onnx.selection import SELECTION_OPERATORS
from tessera_build.frontends.onnx.sequences import SEQUENCE_OPERATORS
from tessera_build.frontends.onnx.shapes import SHAPE_OPERATORS
from tessera_build.frontends.onnx.signals import SIGNAL_OPERATORS
from tessera_build.frontends.onnx.transposed import TRANSPOSED_OPERATORS
from tessera_build.frontends.onnx.unrolled import UNROLLED_OPERATORS
from tessera_build.frontends.onnx.windows import WINDOW_OPERATORS

# Each family with the domain of its operators: "" is ONNX's own, com.microsoft holds onnxruntime's fused ones.
FAMILIES: tuple[tuple[str, Mapping[str, Translator]], ...] = (
    ("", ELEMENTWISE_OPERATORS),
    ("", CASTING_OPERATORS),
    ("", RANDOM_OPERATORS),
    ("", SIGNAL_OPERATORS),
    ("", REDUCTION_OPERATORS),
    ("", NORMALISATION_OPERATORS),
    ("", CONTRACTION_OPERATORS),
    ("", EINSUM_OPERATORS),
    ("", ATTENTION_OPERATORS),
    ("", WINDOW_OPERATORS),
    ("", SHAPE_OPERATORS),
    ("", MOVEMENT_OPERATORS),
    ("", CONTROL_OPERATORS),
    ("", RECURRENT_OPERATORS),
    ("", RESIZE_OPERATORS),
    ("", PADDING_OPERATORS),
    ("", FOURIER_OPERATORS),
    ("", BLOCK_OPERATORS),
    ("", GRID_OPERATORS),
    ("", REGION_OPERATORS),
    ("", GRAM_OPERATORS),
    ("", MATRIX_OPERATORS),
    ("", POOLING_OPERATORS),
    ("", TRANSPOSED_OPERATORS),
    ("", INDEXING_OPERATORS),
    ("", SEQUENCE_OPERATORS),
    ("", UNROLLED_OPERATORS),
    ("", SCATTER_OPERATORS),
    ("", SELECTION_OPERATORS),
    ("", COUNTED_OPERATORS),
    ("ai.onnx.ml", ML_OPERATORS),
    ("", QUANTISED_OPERATORS),
    ("", BORROWED_OPERATORS),
    ("", EXPERIMENTAL_OPERATORS),
    ("com.microsoft", CONTRIB_OPERATORS),
    ("com.microsoft", CONTRIB_GATE_OPERATORS),
    ("com.microsoft", CONTRIB_OTHER_OPERATORS),
    ("com.microsoft", CONTRIB_ATTENTION_OPERATORS),
    ("com.microsoft", CONTRIB_QUANTISED_OPERATORS),
    ("com.microsoft", CONTRIB_INTEGER_OPERATORS),
    ("com.microsoft", CONTRIB_RECURRENT_OPERATORS),
    ("com.microsoft", CONTRIB_REGION_OPERATORS),
    ("com.microsoft", CONTRIB_MATRIX_OPERATORS),
)
OPERATORS: Mapping[tuple[str, str], Translator] = {
    (domain, name): of_any_age(rounded_once(translate) if name in ROUNDED_ONCE else translate)
    for domain, family in FAMILIES
    for name, translate in family.items()
}
_LAYOUT = "onnxruntime wrote its own layouts into the model: save it optimised at the level extended, not all"
# What to say of operators of other domains; "" is any of them.
DOMAIN_HINTS: Mapping[str, str | None] = {
    **dict.fromkeys(domain for domain, _ in FAMILIES),
    "com.microsoft.nchwc": _LAYOUT,
    "com.ms.internal.nhwc": _LAYOUT,
    "ai.onnx.contrib": "operators of onnxruntime-extensions process texts and images: do that outside the model",
    "": "operators of other domains need a function body in the model; export without custom operators",
}

_QUANTISED = "export the model in float32"
_TEXT = "strings are refused: do the text processing outside the model"
_INTERPOLATION = "use Conv, Reshape and Expand for fixed factors"
HINTS: Mapping[str, str] = {
    **dict.fromkeys(("QEmbedLayerNormalization",), _QUANTISED),
    **dict.fromkeys(("StringNormalizer", "StringConcat", "StringSplit"), _TEXT),
    **dict.fromkeys(("GridSample",), _INTERPOLATION),
}
