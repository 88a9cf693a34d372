"""Derivatives judged by float64 finite differences through the reference, and by the product of both modes.

Takes modules whose inputs are float64 or integers; gives assertions. Invariant: what is compared was computed by the
numpy reference alone, and points are drawn from seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.types import F64, Type, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad, with_jvp
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import run, shape_at
from tessera_build.ir.graph.spec import verify_module

DIMS: Mapping[str, int] = {"N": 3, "M": 4, "H": 7, "W": 6}
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
Floats = NDArray[np.float64]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal numbers."""
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers from 0.5 to 2."""
    return rng.uniform(0.5, 2.0, shape)


def inside(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers from -0.8 to 0.8."""
    return rng.uniform(-0.8, 0.8, shape)


def module_of(make: Callable[[GraphBuilder, list[int]], Sequence[int] | int], types: Sequence[Type]) -> Module:
    """The module of what `make` builds of inputs x0, x1, ..."""
    builder = GraphBuilder()
    made = make(builder, [builder.input(f"x{i}", t) for i, t in enumerate(types)])
    for position, value in enumerate([made] if isinstance(made, int) else made):
        builder.output(f"y{position}", value)
    return builder.finish()


def f64(*shape: int | Dim) -> Type:
    """A float64 tensor."""
    return tensor(F64, *shape)


def drawn(module: Module, entry: str, seed: int, draw: Draw = normal) -> dict[str, Array]:
    """Inputs of an entry; integers are zero or one."""
    function, rng = module.entries[entry], np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name, arg in zip(module.input_names[entry], function.args, strict=True):
        type_ = function.types[arg]
        shape = shape_at(type_, DIMS)
        made = draw(rng, shape) if type_.dtype.is_float else rng.integers(0, 2, shape)
        found[name] = made.astype(type_.dtype.numpy)
    return found


def floats_of(module: Module, entry: str) -> list[str]:
    """The names of the floating-point inputs."""
    function = module.entries[entry]
    names = zip(module.input_names[entry], function.args, strict=True)
    return [name for name, arg in names if function.types[arg].dtype.is_float]


def float_outputs(module: Module, entry: str) -> list[str]:
    """The names of the floating-point outputs."""
    function = module.entries[entry]
    names = zip(module.output_names[entry], function.results, strict=True)
    return [name for name, value in names if function.types[value].dtype.is_float]


def check(module: Module, inputs: Mapping[str, Array], entry: str = "main", order: int = 1, seed: int = 1) -> None:
    """Both modes of an entry against differences and each other; with `order` 2 those of both derivatives too."""
    wrt, outputs = floats_of(module, entry), float_outputs(module, entry)
    forward, reverse = with_jvp(module, entry, wrt), with_grad(module, entry, wrt)
    verify_module(forward)
    verify_module(reverse)
    rng = np.random.default_rng(seed)
    directions = {w: rng.standard_normal(inputs[w].shape).astype(inputs[w].dtype) for w in wrt}
    tangents = dict(zip(_new(forward.input_names, entry, "jvp"), directions.values(), strict=True))
    found = run(forward, f"{entry}_jvp", {**inputs, **tangents})
    changes = dict(zip(outputs, (found[n] for n in _new(forward.output_names, entry, "jvp")), strict=True))
    difference = central_difference(module, entry, inputs, directions)
    for output in outputs:
        assert_near(changes[output], difference[output], f"jvp of {entry}: {output}")
    names = _new(reverse.input_names, entry, "grad")
    cotangents = {o: rng.standard_normal(c.shape).astype(c.dtype) if names else np.ones(()) for o, c in changes.items()}
    given = dict(zip(names, cotangents.values(), strict=False))
    found = run(reverse, f"{entry}_grad", {**inputs, **given})
    gradients = dict(zip(wrt, (found[n] for n in _new(reverse.output_names, entry, "grad")), strict=True))
    left = sum(_dot(cotangents[o], changes[o]) for o in outputs)
    right = sum(_dot(gradients[w], directions[w]) for w in wrt)
    assert_near(np.asarray(left), np.asarray(right), f"dot products of {entry}")
    if order > 1:
        check(forward, {**inputs, **tangents}, f"{entry}_jvp", order - 1, seed + 1)
        check(reverse, {**inputs, **given}, f"{entry}_grad", order - 1, seed + 2)


def _dot(left: Array, right: Array) -> float:
    return float(np.sum(left.astype(np.float64) * right.astype(np.float64)))


def _new(names: Mapping[str, tuple[str, ...]], entry: str, derivative: str) -> tuple[str, ...]:
    """The names that a derivative has beyond those of its entry."""
    return names[f"{entry}_{derivative}"][len(names[entry]) :]


def central_difference(
    module: Module, entry: str, inputs: Mapping[str, Array], direction: Mapping[str, Array], step: float = 1e-5
) -> dict[str, Floats]:
    """(f(x + h t) - f(x - h t)) / 2h, extrapolated from two steps, for every floating-point output."""
    wide, narrow = (_difference(module, entry, inputs, direction, h) for h in (2 * step, step))
    return {name: (4 * narrow[name] - wide[name]) / 3 for name in narrow}


def _difference(
    module: Module, entry: str, inputs: Mapping[str, Array], direction: Mapping[str, Array], step: float
) -> dict[str, Floats]:
    ends: list[dict[str, Array]] = []
    for sign in (1.0, -1.0):
        moved = {n: _moved(a, direction[n], sign * step) if n in direction else a for n, a in inputs.items()}
        ends.append(run(module, entry, moved))
    wanted = float_outputs(module, entry)
    return {n: (ends[0][n].astype(np.float64) - ends[1][n].astype(np.float64)) / (2 * step) for n in wanted}


def _moved(array: Array, direction: Array, step: float) -> Array:
    return np.asarray(np.add(array, np.multiply(direction, step)), array.dtype)


def assert_near(found: Array, expected: Array, what: str, tolerance: float = 2e-7) -> None:
    """Within `tolerance` of the largest element."""
    left, right = found.astype(np.float64), expected.astype(np.float64)
    assert left.shape == right.shape, what
    assert np.isfinite(right).all(), what
    scale = max(1.0, float(np.abs(right).max(initial=0.0)))
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * scale, err_msg=what)
