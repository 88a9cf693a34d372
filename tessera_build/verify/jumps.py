"""Where roundings take the elements of a launch: by any amount, if a comparison decides them or terms cancel.

Takes the values that a launch read and what it wrote; gives whether each element lies where roundings of what was read
may take it. Invariant: an element that no rounding moves is excused nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.scalar import COMPARISONS
from tessera_build.ir.core.types import F32, F64, dtype_of
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify.budget import MOST_STEPS

# About what a sum of a thousand terms is rounded by.
JITTER = 2.0**-20
# An element at the edge is on each side in half of the draws.
_DRAWS = 12


def jumps(module: Module, entry: str) -> bool:
    """Whether an entry compares floats."""
    function = module.entries[entry]
    return any(n.op in COMPARISONS and function.types[n.inputs[0]].dtype.is_float for n in graph_nodes(function))


def jittered(array: Array, generator: np.random.Generator, *, of_largest: bool = False) -> Array:
    """Floats of 32 bits and more, each moved by a share of itself, or of the largest; other arrays as they are."""
    if dtype_of(array.dtype) not in (F32, F64):
        return array
    size = np.abs(array).max(initial=0.0) if of_largest else array
    share = JITTER * generator.uniform(-1, 1, array.shape)
    return np.add(array, np.multiply(share, size)).astype(array.dtype)


def moved(module: Module, generator: np.random.Generator) -> Module:
    """The module with its constants moved."""
    return replace(module, constants={digest: jittered(a, generator) for digest, a in module.constants.items()})


def within_reach(
    module: Module, entry: str, inputs: Mapping[str, Array], given: Mapping[int, Array], found: Mapping[int, Array]
) -> dict[int, tuple[Array, Array]] | None:
    """The least and the most that each element of `found` becomes, where all values of `given` are moved a little.

    None where a move ends the run, as an index or a number of iterations that is computed from floats may.
    """
    reach: dict[int, tuple[Array, Array]] = {}

    def widen(value: int, array: Array) -> Array:
        if value in found:
            low, high = reach.get(value, (array, array))
            reach[value] = np.minimum(low, array), np.maximum(high, array)
        return array

    for seed in range(_DRAWS):
        generator = np.random.default_rng(seed)
        near = {name: jittered(array, generator) for name, array in inputs.items()}
        known = {value: jittered(array, generator) for value, array in given.items() if value not in found}
        course = reference.Course(widen, known, reference.Patience(MOST_STEPS))
        try:
            reference.run_along(moved(module, generator), entry, near, found.keys(), course)
        except TesseraError:
            return None
    return reach


def all_within(found: Mapping[int, Array], reach: Mapping[int, tuple[Array, Array]], tolerance: float) -> bool:
    """Whether every element is between its bounds, or no further from them than a share of the largest."""
    for value, array in found.items():
        if value not in reach:
            return False
        low, high = (bound.astype(np.float64).reshape(array.shape) for bound in reach[value])
        room = tolerance * max(float(np.abs(low).max(initial=0.0)), float(np.abs(high).max(initial=0.0)))
        wide = array.astype(np.float64)
        if not bool(np.all((wide >= low - room) & (wide <= high + room))):
            return False
    return True
