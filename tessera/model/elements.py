"""Arrays of the author's as elements of a type that is asked for.

Takes an array, or whatever numpy makes one of, and an element type; gives an array of that type. Invariant: floats are
rounded to floats, and nothing else of a number is lost: imaginary parts, fractions, what is out of range are refused.
"""

from __future__ import annotations

import numpy as np

from tessera.errors import LanguageError
from tessera.model.site import Site
from tessera_build.ir.core.types import DTYPES, DType
from tessera_build.ir.graph.nodes import Array


def elements(numbers: object, dtype: DType, site: Site | None) -> Array:
    """The numbers as a new array of the type; raises `LanguageError` where it cannot hold them."""
    array: Array = np.asarray(numbers)
    if array.dtype.kind not in "biuf" and all(array.dtype != known.numpy for known in DTYPES.values()):
        split = array.dtype.kind == "c"
        raise LanguageError(
            "UNKNOWN_DTYPE",
            "an array's elements have no element type here",
            site=site,
            expected=f"numbers that are {dtype}",
            found=str(array.dtype),
            hint="real and imaginary parts are two tensors: array.real, array.imag" if split else None,
        )
    with np.errstate(invalid="ignore"):  # what is no number becomes some integer, and is refused below
        kept = np.array(array, dtype=dtype.numpy, order="C")
    if not dtype.is_float and kept.dtype != array.dtype and not _same(kept, array):
        raise LanguageError(
            "NUMBER_CHANGES_TYPE",
            f"an array has numbers that are no elements of type {dtype}",
            site=site,
            expected=f"numbers that {dtype} holds exactly",
            found=f"{array.dtype}{list(array.shape)}",
            hint="round or cut them yourself: np.rint(array), np.clip(array, low, high)",
        )
    return kept


def _same(kept: Array, array: Array) -> bool:
    """Whether a conversion changed nothing; signs show what came back around the end of a range."""
    return np.array_equal(kept.astype(array.dtype), array) and np.array_equal(np.less(kept, 0), np.less(array, 0))
