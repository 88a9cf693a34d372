"""What a model's conditioning leaves to be judged: how far its floats themselves take it from the exact answer.

Takes a module as a frontend made it and inputs; gives, for each output, the error of the Graph reference against the
same graph in float64, and how far roundings move it. Invariant: only Tessera's own
evaluations of one graph are compared here, so a model that was misread is not excused by being far from onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.core.scalar import COMPARISONS
from tessera_build.ir.core.types import BF16, F16, F32, F64, DType, dtype_of
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Attribute, GraphNode, Module
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.verify.budget import MOST_STEPS
from tessera_build.verify.compare import apart, error_of, is_float
from tessera_build.verify.jumps import Moved, jittered

# The Graph reference rounds once an operation, a build once an addition. Measured on magika with two kinds of bytes,
# where a variance E[x²] - E[x]² cancels: reference 9e-5, onnxruntime 1.3e-3, build 5.8e-3 from the exact answer.
SLACK = 64.0
# Nothing this far off is excused.
LARGEST = 1e-2
# Of roundings, where each launch is proved on what it was given.
_DRAWS = 3
# Each element of these is rounded as its terms ask for, which may be as large as the largest of all.
_SUMS = frozenset({"attention", "conv", "matmul", "reduce", "reduce_window"})
_FULL = frozenset({F32})
# Of whole runs, roundings to half floats count as float32's do: a converted model has f32 inputs and outputs, and is
# 1e-3 off between two right runs. Eight bits are a quantisation, which the model means.
_ROUNDED = frozenset({BF16, F16, F32})
_MOVED_SLACK = 2.0
_MOVED_LARGEST = 0.5
_Key = TypeVar("_Key")


def widened_limit(limit: float, noise: float) -> float:
    """The largest error that is accepted where the Graph reference's own is `noise`."""
    return max(limit, min(SLACK * noise, LARGEST))


def noise_of(source: Module, entry: str, inputs: Mapping[str, Array], answers: Mapping[str, Array]) -> dict[str, float]:
    """The error of the Graph reference's `answers` by output; none where the model cannot be computed in float64."""
    results = dict(zip(source.output_names[entry], source.entries[entry].results, strict=True))
    values = {results[name]: array for name, array in answers.items()}
    noise = noise_of_values(source, entry, inputs, values, _ROUNDED)
    return {name: noise[value] for name, value in results.items() if value in noise}


def noise_of_values(
    module: Module,
    entry: str,
    inputs: Mapping[str, Array],
    answers: Mapping[int, Array],
    kinds: frozenset[DType] = _FULL,
) -> dict[int, float]:
    """The same for any values of an entry; `kinds`: the types whose roundings count."""
    try:
        patience = reference.Patience(MOST_STEPS)
        wide = _wide_arrays(inputs, kinds)
        exact, _ = reference.run_with_sizes(_widened(module, kinds), entry, wide, answers.keys(), patience)
    except TesseraError:
        return {}
    return {value: error_of(array, exact[value].astype(array.dtype)) for value, array in answers.items()}


def limits_of_moves(module: Module, entry: str, inputs: Mapping[str, Array]) -> dict[str, float]:
    """How far each output may be off where every launch is right on what it was given; none where nothing is left.

    In float64, all floats that there are on the way are moved by a rounding, and answers follow: by little, by more
    than all that they are where they are zero but for rounding, or by whole units if a comparison changes its side.
    Which outputs such a unit reaches is chance, so that the furthest counts for all. Only what is zero but for rounding
    may be off by more than half of its largest, and one output at least must be determined better than that.
    """
    if data_sizes(module.entries[entry]):
        return {}
    wide, floats = _widened(module, _FULL), _wide_arrays(inputs, _FULL)
    try:
        exact = _Course.of(wide, entry, floats, None)
        draws = [_Course.of(wide, entry, floats, np.random.default_rng(seed)) for seed in range(_DRAWS)]
    except TesseraError:
        return {}
    scales = {name: _largest(array) for name, array in exact.outputs.items() if is_float(array)}
    moves = {name: max(apart(d.outputs[name], exact.outputs[name]) for d in draws) for name in scales}
    if not all(map(math.isfinite, moves.values())):
        return {}
    shares = {name: move / scales[name] if scales[name] else math.inf for name, move in moves.items() if move}
    turned = any(not np.array_equal(d.sides[v], sides) for d in draws for v, sides in exact.sides.items())
    if min(shares.values(), default=0.0) > (_MOVED_LARGEST if turned else LARGEST):
        return {}
    furthest = max((share for share in shares.values() if share < 1), default=0.0) if turned else 0.0
    return {
        name: _MOVED_SLACK * move
        if shares.get(name, 0.0) >= 1
        else min(_MOVED_SLACK * max(shares.get(name, 0.0), furthest), _MOVED_LARGEST) * scales[name]
        for name, move in moves.items()
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """What a run in float64 came to: its outputs, and the results of all comparisons of floats."""

    outputs: Mapping[str, Array]
    sides: Mapping[int, Array]

    @classmethod
    def of(cls, wide: Module, entry: str, inputs: Mapping[str, Array], by: np.random.Generator | None) -> _Course:
        """A run where every value that a node makes is moved, as a build rounds there; None: as it is."""
        function, names = wide.entries[entry], wide.output_names[entry]
        nodes = list(graph_nodes(function))
        compared = [n for n in nodes if n.op in COMPARISONS and function.types[n.inputs[0]].dtype.is_float]
        results, sums = frozenset(function.results), {v for n in nodes if n.op in _SUMS for v in n.outputs}
        made, sides = dict[int, Array](), dict[int, Array]()
        turning = {value for node in compared for value in node.outputs}

        def correct(value: int, array: Array) -> Array:
            array = array if by is None else jittered(array, by, of_largest=value in sums)
            if value in results:
                made[value] = array
            if value in turning:
                sides[value] = array
            return array

        run = wide if by is None else replace(wide, constants=Moved(wide.constants, by))
        near = inputs if by is None else Moved(inputs, by)
        course = reference.Course(correct, patience=reference.Patience(MOST_STEPS))
        reference.run_along(run, entry, near, results, course)
        given = dict(zip(function.args, (inputs[name] for name in wide.input_names[entry]), strict=True))
        outputs = {name: (made | given)[v] for name, v in zip(names, function.results, strict=True)}
        return cls(outputs, sides)


def _largest(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)].astype(np.float64)).max(initial=0.0))


def _wide_arrays(arrays: Mapping[_Key, Array], kinds: frozenset[DType]) -> dict[_Key, Array]:
    """The arrays, in float64 where they are of these types."""
    return {key: a.astype(np.float64) if dtype_of(a.dtype) in kinds else a for key, a in arrays.items()}


def _widened(module: Module, kinds: frozenset[DType]) -> Module:
    """The module with float64 wherever it has these types; constants keep the names they are found by."""
    constants = _wide_arrays(module.constants, kinds)
    return replace(
        module, constants=constants, entries={n: _wide_function(f, kinds) for n, f in module.entries.items()}
    )


def _wide_function(function: Function, kinds: frozenset[DType]) -> Function:
    types = {v: replace(t, dtype=F64) if t.dtype in kinds else t for v, t in function.types.items()}
    return replace(map_nodes(function, partial(_wide_node, kinds=kinds)), types=types)


def _wide_node(node: Node, kinds: frozenset[DType]) -> Node:
    if not isinstance(node, GraphNode):
        return node
    attributes: dict[str, Attribute] = {k: F64 if v in kinds else v for k, v in node.attributes.items()}
    return replace(node, attributes=attributes)
