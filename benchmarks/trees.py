"""Ensembles of decision trees beside onnxruntime, in turn in one process, one thread.

    python -m benchmarks.trees [--rounds 12] [--model MODEL.onnx --rows 1,257]

Without a model: drawn ensembles of 30 features, of which every second condition sends NaN to its true side. Every
call gets another one of 16 inputs, so that a processor cannot learn the way of a row by heart. Prints the minima.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, load, save

import tessera_build
import tessera_runtime

FEATURES = 30
INPUTS = 16
Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """How many trees, how deep, for how many targets; `leaves`: of each tree, else about all that the depth allows."""

    trees: int
    depth: int
    targets: int
    leaves: int | None = None
    every_target: bool = False


ENSEMBLES = (
    Ensemble(100, 3, 1),
    Ensemble(300, 30, 1, leaves=60),
    Ensemble(500, 10, 1),
    Ensemble(100, 8, 10, every_target=True),
    Ensemble(100, 12, 3, every_target=True),
)


class _Drawn:
    """The lists of a TreeEnsembleRegressor while its trees are drawn."""

    def __init__(self, shape: Ensemble) -> None:
        self.shape, self.random = shape, np.random.default_rng(0)
        self.modes: list[str] = []
        self.integers: dict[str, list[int]] = {
            name: [] for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
        }
        self.values: list[float] = []
        self.missing: list[int] = []
        self.targets: dict[str, list[int]] = {name: [] for name in ("treeids", "nodeids", "ids")}
        self.weights: list[float] = []

    def grow(self, tree: int, number: int, depth: int, room: int) -> int:
        """Draw a node and all below it; gives the number after theirs."""
        place, leaves = len(self.modes), self.shape.leaves
        stops = depth == self.shape.depth or room == 1 or (leaves is None and depth > 2 and self.random.random() < 0.08)
        row = (tree, number, int(self.random.integers(FEATURES)), 0, 0)
        for column, value in zip(self.integers.values(), row, strict=True):
            column.append(value)
        self.modes.append("LEAF" if stops else "BRANCH_LEQ")
        self.values.append(float(np.float32(self.random.normal())))
        self.missing.append(int(self.random.integers(2)))
        if stops:
            self._weigh(tree, number)
            return number + 1
        part = int(self.random.integers(1, room)) if leaves else 2
        self.integers["truenodeids"][place] = number + 1
        after = self.grow(tree, number + 1, depth + 1, part)
        self.integers["falsenodeids"][place] = after
        return self.grow(tree, after, depth + 1, room - part if leaves else 2)

    def _weigh(self, tree: int, number: int) -> None:
        every = range(self.shape.targets) if self.shape.every_target else (tree % self.shape.targets,)
        for target in every:
            for column, value in zip(self.targets.values(), (tree, number, target), strict=True):
                column.append(value)
            self.weights.append(float(self.random.normal()))


def drawn(shape: Ensemble) -> ModelProto:
    """A model of one TreeEnsembleRegressor."""
    lists = _Drawn(shape)
    for tree in range(shape.trees):
        lists.grow(tree, 0, 0, shape.leaves or 2)
    attributes: dict[str, Sequence[int] | Sequence[float] | Sequence[str]] = {
        **{f"nodes_{name}": column for name, column in lists.integers.items()},
        **{f"target_{name}": column for name, column in lists.targets.items()},
        "nodes_modes": lists.modes,
        "nodes_values": lists.values,
        "nodes_missing_value_tracks_true": lists.missing,
        "target_weights": lists.weights,
    }
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    node.attribute.append(helper.make_attribute("n_targets", shape.targets))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", shape.targets])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "trees", [x], [y]), opset_imports=opsets, ir_version=8)


def measure(path: Path, rows: Sequence[int], rounds: int) -> list[tuple[float, float]]:
    """The least seconds a call for each number of rows: onnxruntime's and ours."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.tessera"
        tessera_build.build(path, targets=["native"], out=bundle)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        peer = ort.InferenceSession(str(path), options)
        with tessera_runtime.load(bundle, threads=1) as model:
            (given,) = model.inputs
            found: list[tuple[float, float]] = []
            for count in rows:
                shape = (INPUTS, count, int(given.shape[1]))
                inputs = np.random.default_rng(count).normal(size=shape).astype(given.numpy)
                feeds = [{given.name: x} for x in inputs]
                found.append(_best((functools.partial(peer.run, None), model.run), feeds, rounds))
    return found


def _best(
    calls: tuple[Callable[[Feeds], object], Callable[[Feeds], object]], inputs: Sequence[Feeds], rounds: int
) -> tuple[float, float]:
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for position, call in enumerate(calls):
            start = time.perf_counter()
            for feeds in inputs:
                call(feeds)
            best[position] = min(best[position], (time.perf_counter() - start) / len(inputs))
    return best[0], best[1]


def main() -> None:
    """Print one line for each ensemble and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", default="1,10,1000")
    options = parser.parse_args()
    rows = [int(word) for word in options.rows.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for shape in (None,) if options.model else ENSEMBLES:
            path = options.model or Path(folder) / "trees.onnx"
            if shape is not None:
                save(drawn(shape), path)
            print(shape or f"{path.name}: {len(load(path).graph.node)} nodes")
            for count, (peer, own) in zip(rows, measure(path, rows, options.rounds), strict=True):
                print(f"  {count:5} rows: {1e6 * peer:9.1f} µs to {1e6 * own:9.1f} µs, {peer / own:5.2f}")


if __name__ == "__main__":
    main()
