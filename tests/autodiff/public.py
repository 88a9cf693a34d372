"""Models that other people ship, as subjects of differentiation: where they are differentiated, and how exactly.

Takes ONNX files with cases beside them; gives a module whose weights all have names, points near its cases, the
comparisons that compiled code made there, and how far gradients are apart. Invariant: a point is the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera_build.frontends.onnx import read_named
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.reference import run, run_all
from tests.autodiff.models import only, widened
from tests.autodiff.pieces import comparisons, distance_of, names_of

SMALL = 1e-5  # where the gradient is this much smaller than the largest, terms have cancelled
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model whose weights all have names, and what it is differentiated by."""

    module: Module
    wrt: tuple[str, ...]

    def gradients(self) -> Module:
        """The entry with gradients, as `main`."""
        return only(with_grad(self.module, "main", self.wrt), "main_grad")

    def wide(self) -> Subject:
        """The model in float64."""
        return replace(self, module=widened(self.module))


@dataclass(frozen=True, slots=True)
class Point:
    """Where a model is differentiated: inputs, cotangents of the outputs, and both as float64."""

    inputs: Mapping[str, Array]
    wide: Mapping[str, Array]
    cotangents: Mapping[str, Floats]

    @property
    def given(self) -> dict[str, Array]:
        """The operands of the entry with gradients in float64."""
        return {**self.wide, **{f"{name}_cotangent": array for name, array in self.cotangents.items()}}


def subject_of(path: Path) -> Subject:
    """A model, differentiated by all float inputs and all weights of more than one number."""
    module = read_named(path)
    function = module.entries["main"]
    inputs = zip(module.input_names["main"], function.args, strict=True)
    digests = dict.fromkeys(str(n.attributes["digest"]) for n in graph_nodes(function) if n.op == "constant")
    names = {d: module.constant_names.get(d) or f"unnamed_{i}" for i, d in enumerate(digests)}
    weights = [d for d in digests if module.constants[d].dtype.kind == "f" and module.constants[d].size > 1]
    wrt = [name for name, arg in inputs if function.types[arg].dtype.is_float] + [names[d] for d in weights]
    return Subject(replace(module, constant_names=names), tuple(wrt))


def cases_of(path: Path) -> list[Path]:
    """The inputs that lie beside a model."""
    found = sorted(path.parent.glob(f"{path.stem}.case*.in.npz"))
    assert found
    return found


def point_near(case: Path, module: Module, draw: Draw = np.random.Generator.standard_normal, seed: int = 5) -> Point:
    """A case's inputs, floats moved a little: equal pixels in a window make kinks of the inputs themselves."""
    archive, rng, found = np.load(case), np.random.default_rng(seed), dict[str, Array]()
    for index, name in enumerate(archive["names"]):
        array = archive[f"i{index:02d}"]
        if str(name) in module.input_names["main"]:
            noise = rng.standard_normal(array.shape) * (0.01 * np.abs(array.astype(np.float64)).mean() + 1e-3)
            found[str(name)] = (array + noise).astype(array.dtype) if array.dtype.kind == "f" else array
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in found.items()}
    outputs = run(widened(module), "main", wide)
    floats = {n: a for n, a in outputs.items() if a.dtype.kind == "f"}
    return Point(found, wide, {n: _cotangent(a, rng, draw) for n, a in floats.items()})


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Cotangents whose sum over an image does not cancel."""
    return rng.uniform(0.5, 1.5, shape)


def _cotangent(output: Array, rng: np.random.Generator, draw: Draw) -> Floats:
    """Numbers as they are drawn. Probabilities that sum to one count by their relative change: beside 0.9999997 the
    change of 3e-7 is lost, in differences of float64 as in any gradient of float32."""
    drawn = draw(rng, output.shape)
    if output.ndim < 2 or output.shape[-1] == 1 or output.min() <= 0 or not np.allclose(output.sum(-1), 1):
        return drawn
    return np.divide(drawn, np.maximum(output, np.exp(np.log(output).mean())))


def narrowed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What is float64 as float32."""
    return {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}


def pieces_made(wide: Module, given: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, Array]:
    """The comparisons as compiled code made them. It may be on another side than float64 in few places, and only where
    float32 cannot tell on which side it is."""
    nodes = comparisons(wide.entries["main"])
    values = run_all(wide, "main", given, [n.output for n in nodes])
    names = names_of([n.output for n in nodes])
    made = {name: found[name].astype(values[n.output].dtype) for name, n in zip(names, nodes, strict=True)}
    others = [(n, made[name] != values[n.output]) for name, n in zip(names, nodes, strict=True)]
    others = [(node, other) for node, other in others if other.any()]
    operands = run_all(wide, "main", given, [v for n, _ in others for v in n.inputs])
    for node, other in others:
        distance, scale = distance_of(node, [operands[v] for v in node.inputs])
        assert np.broadcast_to(distance, other.shape)[other].max() <= 1e-5 * scale, node.op
        assert other.mean() <= 0.01, (node.op, other.mean())
    return made


def length(left: Mapping[str, Array], right: Mapping[str, Array], wrt: Sequence[str]) -> float:
    """The length of the difference of all gradients as one vector."""
    names = [f"{w}_gradient" for w in wrt]
    parts = [np.subtract(left[n], right[n], dtype=np.float64) if n in right else left[n] for n in names]
    return float(np.sqrt(sum(float(np.sum(np.square(part, dtype=np.float64))) for part in parts)))


def errors_of(found: Mapping[str, Array], exact: Mapping[str, Array], wrt: Sequence[str]) -> dict[str, float]:
    """For each gradient its largest error, relative to its largest element, or to `SMALL` times the largest of all."""
    sizes = {w: float(np.abs(exact[f"{w}_gradient"]).max(initial=0)) for w in wrt}
    least = SMALL * max(sizes.values())
    return {w: _distance(found, exact, w) / max(size, least) for w, size in sizes.items()}


def lengths_of(found: Mapping[str, Array], exact: Mapping[str, Array], wrt: Sequence[str]) -> dict[str, float]:
    """For each gradient the length of its error, relative to its own, or to `SMALL` times the longest."""
    sizes = {w: length(exact, {}, (w,)) for w in wrt}
    least = SMALL * max(sizes.values())
    return {w: length(found, exact, (w,)) / max(size, least) for w, size in sizes.items()}


def _distance(left: Mapping[str, Array], right: Mapping[str, Array], w: str) -> float:
    difference = np.subtract(left[f"{w}_gradient"], right[f"{w}_gradient"], dtype=np.float64)
    return float(np.abs(difference).max(initial=0))
