"""How far an answer is from the reference.

Takes: two arrays of one shape and type.
Gives: one number, and whether a policy's tolerance accepts it.
Invariant: 0 means equal; a NaN or an infinity that the reference does not have at that place is infinitely far.
"""

import math

import ml_dtypes
import numpy as np

from tessera_build.config import Tolerance
from tessera_build.ir.core.types import DType, dtype_of
from tessera_build.ir.graph.nodes import Array

_LAST_PLACES = 4


def error_of(found: Array, reference: Array) -> float:
    """max |found - reference| / max |reference| for floats (absolute where the reference is zero everywhere).

    Below the type's smallest normal number floats lie a fixed step apart and lose digits: a reference that is smaller
    counts as that number. For integers and booleans: the share of elements that differ.
    """
    if found.shape != reference.shape or found.dtype != reference.dtype:
        return math.inf
    if reference.size == 0:
        return 0.0
    if not is_float(reference):
        return float(np.mean(found != reference))
    left, right = found.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    if not np.all(finite == np.isfinite(left)) or not np.all(same[~finite]):
        return math.inf
    if not finite.any():
        return 0.0
    largest = float(np.abs(right[finite]).max())
    scale = max(largest, float(ml_dtypes.finfo(reference.dtype).smallest_normal)) if largest else 1.0
    return float(np.abs(left[finite] - right[finite]).max()) / scale


def apart(left: Array, right: Array) -> float:
    """The largest distance between two arrays; infinite where shapes, infinities or what is no number differ."""
    wide, other = left.astype(np.float64), right.astype(np.float64)
    if wide.shape != other.shape:
        return math.inf
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        distances = np.where(same, 0.0, np.abs(wide - other))
    return float(np.where(np.isnan(distances), math.inf, distances).max(initial=0.0))


def is_float(array: Array) -> bool:
    """Whether an array is judged by distance (floats) or by agreement (everything else)."""
    return dtype_of(array.dtype).is_float


def limit_of(array: Array, tolerance: float, policy: Tolerance) -> float:
    """The largest error that is accepted for an answer of this type; `tolerance` is the one for floats.

    Two right answers in a narrow type differ by its rounding, so the limit is never below some of its last places.
    """
    if not is_float(array):
        return 1.0 - policy.agreement
    return max(tolerance, last_places(dtype_of(array.dtype)))


def last_places(dtype: DType) -> float:
    """What two right answers may differ by where they were rounded to this float type, as a share of the largest."""
    return _LAST_PLACES * float(ml_dtypes.finfo(dtype.numpy).eps)
