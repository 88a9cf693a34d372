"""How answers are judged that were rounded to the steps of a quantised model.

Takes a module, or two arrays; gives what may be excused. Invariant: only a model that quantises is excused anything,
one launch fed with reference inputs only a step here and there, and integers that are no quantised numbers nothing.

Two right computations of x differ in its last place; where x / scale lies half way between two integers they then
differ by a whole step, which the rest of the model carries on. Onnxruntime with and without its own optimiser differ by
7e-3 of the largest value on a two-layer encoder quantised at run time.
"""

from __future__ import annotations

import math

import numpy as np

from tessera_build.ir.core.types import DType, dtype_of
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module

# What is accepted of a whole quantised model, as a share of the largest value.
LARGEST = 0.05
# How many elements of one launch may be a step away.
FEW = 0.02
_CLOSE = 1e-4
_WIDEST_BITS = 16


def quantises(module: Module) -> bool:
    """Whether a module rounds floats, and has integers of 16 bits or less."""
    functions = module.entries.values()
    rounds = any(node.op == "round" for function in functions for node in graph_nodes(function))
    return rounds and any(is_narrow(t.dtype) for function in functions for t in function.types.values())


def is_narrow(dtype: DType) -> bool:
    """Whether an element type is one that floats are quantised to."""
    return dtype.kind in ("signed", "unsigned") and dtype.bits <= _WIDEST_BITS


def is_a_step_away(found: Array, reference: Array) -> bool:
    """Whether few elements of a launch's result differ, and none by more than a step could make."""
    kind = dtype_of(reference.dtype)
    if found.shape != reference.shape or found.dtype != reference.dtype or not (kind.is_float or is_narrow(kind)):
        return False
    left, right = found.astype(np.float64), reference.astype(np.float64)
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return False
    finite = np.isfinite(right)
    difference = np.abs(left[finite] - right[finite])
    scale = float(np.abs(right[finite]).max(initial=0.0)) or 1.0
    step, close = (LARGEST * scale, _CLOSE * scale) if kind.is_float else (1.0, 0.0)
    far = int(np.count_nonzero(difference > close))
    return bool(difference.max(initial=0.0) <= step) and far <= max(1.0, FEW * difference.size)


def distance(found: Array, reference: Array) -> float:
    """max |found - reference| / max |reference|, for quantised numbers as for floats; infinite for other integers."""
    kind = dtype_of(reference.dtype)
    if found.shape != reference.shape or found.dtype != reference.dtype or not (kind.is_float or is_narrow(kind)):
        return math.inf
    left, right = found.astype(np.float64), reference.astype(np.float64)
    error = float(np.abs(left - right).max(initial=0.0)) / (float(np.abs(right).max(initial=0.0)) or 1.0)
    return math.inf if math.isnan(error) else error
