"""What a model's conditioning leaves to be judged: how far float32 itself takes the model from the exact answer.

Takes a module as a frontend made it and inputs; gives, for each output, the error of the Graph reference against the
same graph in float64, and how far roundings move it. Invariant: only Tessera's own
evaluations of one graph are compared here, so a model that was misread is not excused by being far from onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.core.types import F32, F64
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode, Module
from tessera_build.verify.budget import MOST_STEPS
from tessera_build.verify.compare import error_of, is_float
from tessera_build.verify.jumps import jittered, jumps, moved

# The Graph reference rounds once an operation, a build once an addition. Measured on magika with two kinds of bytes,
# where a variance E[x²] - E[x]² cancels: reference 9e-5, onnxruntime 1.3e-3, build 5.8e-3 from the exact answer.
SLACK = 64.0
# Nothing this far off is excused.
LARGEST = 1e-2
# Of roundings, where each launch is proved on what it was given.
_DRAWS = 3
# Each element of these is rounded as its terms ask for, which may be as large as the largest of all.
_SUMS = frozenset({"attention", "conv", "matmul", "reduce", "reduce_window"})
_MOVED_SLACK = 2.0
_MOVED_LARGEST = 0.5


def widened_limit(limit: float, noise: float) -> float:
    """The largest error that is accepted where the Graph reference's own is `noise`."""
    return max(limit, min(SLACK * noise, LARGEST))


def noise_of(source: Module, entry: str, inputs: Mapping[str, Array], answers: Mapping[str, Array]) -> dict[str, float]:
    """The error of the Graph reference's `answers` by output; none where the model cannot be computed in float64."""
    results = dict(zip(source.output_names[entry], source.entries[entry].results, strict=True))
    noise = noise_of_values(source, entry, inputs, {results[name]: array for name, array in answers.items()})
    return {name: noise[value] for name, value in results.items() if value in noise}


def noise_of_values(
    module: Module, entry: str, inputs: Mapping[str, Array], answers: Mapping[int, Array]
) -> dict[int, float]:
    """The same for any values of an entry."""
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in inputs.items()}
    try:
        exact = reference.run_all(_widened(module), entry, wide, answers.keys())
    except TesseraError:
        return {}
    return {value: error_of(array, exact[value].astype(array.dtype)) for value, array in answers.items()}


def limits_of_moves(module: Module, entry: str, inputs: Mapping[str, Array]) -> dict[str, float]:
    """What each output may be off where every launch is right on what it was given; none where roundings leave nothing.

    In float64, all floats that there are on the way are moved by a rounding, and answers follow: by little, by all that
    they are where they are zero but for rounding, or by a whole unit that changed its side. Which outputs such a unit
    reaches is chance, so the furthest counts for all, up to a half. Without comparisons one output at least must stay.
    """
    wide = _widened(module)
    floats = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in inputs.items()}
    try:
        exact = reference.run(wide, entry, floats)
        draws = [_moved(wide, entry, floats, seed) for seed in range(_DRAWS)]
    except TesseraError:
        return {}
    moves = {n: max(_share(draw.get(n, a), a) for draw in draws) for n, a in exact.items() if is_float(a)}
    if jumps(module, entry):
        furthest = min(_MOVED_SLACK * max(moves.values(), default=0.0), _MOVED_LARGEST)
        return {name: max(_MOVED_SLACK * move, furthest) for name, move in moves.items()}
    if min(moves.values(), default=0.0) > LARGEST:
        return {}
    return {name: _MOVED_SLACK * move for name, move in moves.items()}


def _share(moved: Array, exact: Array) -> float:
    """The error of what was moved; infinite where all of nothing became something."""
    return error_of(moved, exact) if exact.any() or not moved.any() else math.inf


def _moved(wide: Module, entry: str, inputs: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The outputs where every value that a node makes is moved, as a build rounds there."""
    generator, made = np.random.default_rng(seed), dict[int, Array]()
    function, names = wide.entries[entry], wide.output_names[entry]
    sums = {output for node in graph_nodes(function) if node.op in _SUMS for output in node.outputs}

    def correct(value: int, array: Array) -> Array:
        array = jittered(array, generator, of_largest=value in sums)
        if value in results:
            made[value] = array
        return array

    results, course = frozenset(function.results), reference.Course(correct, patience=reference.Patience(MOST_STEPS))
    near = {name: jittered(array, generator) for name, array in inputs.items()}
    reference.run_along(moved(wide, generator), entry, near, results, course)
    return {name: made[value] for name, value in zip(names, function.results, strict=True) if value in made}


def _widened(module: Module) -> Module:
    """The module with float64 wherever it has float32; constants keep the names they are found by."""
    constants = {d: a.astype(np.float64) if a.dtype == np.float32 else a for d, a in module.constants.items()}
    return replace(module, constants=constants, entries={n: _wide_function(f) for n, f in module.entries.items()})


def _wide_function(function: Function) -> Function:
    types = {v: replace(t, dtype=F64) if t.dtype == F32 else t for v, t in function.types.items()}
    return replace(map_nodes(function, _wide_node), types=types)


def _wide_node(node: Node) -> Node:
    if not isinstance(node, GraphNode):
        return node
    attributes: dict[str, Attribute] = {k: F64 if v == F32 else v for k, v in node.attributes.items()}
    return replace(node, attributes=attributes)
