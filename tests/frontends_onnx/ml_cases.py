"""Re-drawn models of the domain ai.onnx.ml, with inputs.

Takes seeds; gives models of one node and a case each. Invariant: trees have every mode, missing values and equalities
among the draws, and classifiers every way in which leaves can speak of two classes or more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tessera_build.ir.graph.nodes import Array

Drawn = tuple[onnx.ModelProto, dict[str, Array]]
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(op: str, operands: Mapping[str, Array], outputs: Sequence[int], **attributes: object) -> Drawn:
    """A model of one node whose first axis is a dim; `outputs` are element types."""
    version = int(str(attributes.pop("version", 3)))
    names = [f"y{i}" for i in range(len(outputs))]
    node = helper.make_node(op, list(operands), names, name="node", domain="ai.onnx.ml")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), ["N", *a.shape[1:]])
        for n, a in operands.items()
    ]
    results = [helper.make_tensor_value_info(n, code, None) for n, code in zip(names, outputs, strict=True)]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, results), opset_imports=imports)
    model.ir_version = 8
    return model, dict(operands)


def normal(draw: random.Random, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(draw.randrange(1 << 30)).standard_normal(shape).astype(np.float32)


def listed(draw: random.Random, count: int) -> list[float]:
    return [float(v) for v in normal(draw, count)]


def _rows(draw: random.Random) -> Array:
    return normal(draw, draw.randint(2, 6), draw.randint(1, 5))


def scaler(draw: random.Random) -> Drawn:
    x = _rows(draw).astype(draw.choice(["float32", "float64", "int64", "int32"]))
    width = draw.choice([1, x.shape[1]])
    return model_of("Scaler", {"x": x}, [FLOAT], offset=listed(draw, width), scale=listed(draw, width))


def normalizer(draw: random.Random) -> Drawn:
    x = np.array(_rows(draw))
    x[0] = 0
    return model_of("Normalizer", {"x": x}, [FLOAT], norm=draw.choice(["MAX", "L1", "L2"]))


def binarizer(draw: random.Random) -> Drawn:
    return model_of("Binarizer", {"x": _rows(draw)}, [FLOAT], threshold=draw.uniform(-1, 1))


def imputer(draw: random.Random) -> Drawn:
    x = np.array(_rows(draw))
    x[np.abs(x) < 0.5] = np.nan
    values = listed(draw, draw.choice([1, x.shape[1]]))
    return model_of("Imputer", {"x": x}, [FLOAT], imputed_value_floats=values, replaced_value_float=float("nan"))


def one_hot(draw: random.Random) -> Drawn:
    x = np.array([draw.randint(0, 5) for _ in range(7)])
    return model_of("OneHotEncoder", {"x": x}, [FLOAT], cats_int64s=[1, 3, 4], version=1)


def label_encoder(draw: random.Random) -> Drawn:
    keys = draw.sample(range(20), draw.randint(1, 15))
    values = [draw.uniform(-5, 5) for _ in keys]
    x = np.array([[draw.randint(0, 20) for _ in range(9)] for _ in range(3)])
    return model_of("LabelEncoder", {"x": x}, [FLOAT], keys_int64s=keys, values_floats=values, version=2)


def linear_regressor(draw: random.Random) -> Drawn:
    x, targets = _rows(draw), draw.randint(1, 3)
    found = {"coefficients": listed(draw, targets * x.shape[1]), "intercepts": listed(draw, targets)}
    word = draw.choice(TRANSFORMS)
    return model_of("LinearRegressor", {"x": x}, [FLOAT], targets=targets, post_transform=word, version=1, **found)


def linear_classifier(draw: random.Random) -> Drawn:
    x, classes = _rows(draw), draw.randint(1, 4)
    found = {"coefficients": listed(draw, classes * x.shape[1]), "intercepts": listed(draw, classes)}
    labels, word = draw.sample(range(9), max(classes, 2)), draw.choice(TRANSFORMS)
    outputs = [INT64, FLOAT]
    stated = {"classlabels_ints": labels, "post_transform": word, "version": 1}
    return model_of("LinearClassifier", {"x": x}, outputs, **found, **stated)


def support_vectors(draw: random.Random) -> Drawn:
    x, count = _rows(draw), draw.randint(0, 6)
    kind = draw.choice(["LINEAR", "POLY", "RBF", "SIGMOID"]) if count else "LINEAR"
    found: dict[str, object] = {"n_supports": count, "kernel_type": kind, "kernel_params": [0.5, 0.3, 2.0]}
    found["coefficients"], found["rho"] = listed(draw, count or x.shape[1]), listed(draw, 1)
    found["one_class"] = draw.choice([0, 1])
    if count:
        found["support_vectors"] = listed(draw, count * x.shape[1])
    return model_of("SVMRegressor", {"x": x}, [FLOAT], version=1, **found)


def support_classifier(draw: random.Random) -> Drawn:
    x, counts = _rows(draw), [draw.randint(1, 3) for _ in range(draw.randint(2, 4))]
    classes, pairs = len(counts), len(counts) * (len(counts) - 1) // 2
    found: dict[str, object] = {"vectors_per_class": counts, "support_vectors": listed(draw, sum(counts) * x.shape[1])}
    found |= {"coefficients": listed(draw, (classes - 1) * sum(counts)), "rho": listed(draw, pairs)}
    found |= {"kernel_type": draw.choice(["LINEAR", "RBF", "SIGMOID"]), "kernel_params": [0.5, 0.3, 2.0]}
    found |= {"classlabels_ints": draw.sample(range(9), classes), "post_transform": draw.choice(TRANSFORMS[:3])}
    if draw.random() < 0.5:
        found |= {"prob_a": [-abs(v) - 0.5 for v in listed(draw, pairs)], "prob_b": listed(draw, pairs)}
    return model_of("SVMClassifier", {"x": x}, [INT64, FLOAT], version=1, **found)


@dataclass(frozen=True)
class Grown:
    """The nodes of an ensemble as the operators state them, its leaves (tree, node), and rows to walk it."""

    nodes: dict[str, list[int] | list[float] | list[str]]
    leaves: list[tuple[int, int]]
    x: Array
    trees: int


def grown(draw: random.Random) -> Grown:
    """Random trees over whole numbers or reals, with or without missing values."""
    features, trees = draw.randint(1, 4), draw.randint(1, 30)
    whole, gaps = draw.random() < 0.5, draw.random() < 0.5
    modes = draw.choice([("BRANCH_LEQ",), ("BRANCH_LT",), ("BRANCH_GT",), MODES])
    rows: list[tuple[int, int, int, float, str, int, int, int]] = []
    leaves: list[tuple[int, int]] = []

    def grow(tree: int, start: int, depth: int) -> int:
        place = len(rows)
        node = place - start
        rows.append((tree, node, 0, 0.0, "LEAF", 0, 0, 0))
        if depth == 0 or draw.random() < 0.15:
            leaves.append((tree, node))
            return node
        pair = grow(tree, start, depth - 1), grow(tree, start, depth - 1)
        split = float(draw.randint(-2, 2)) if whole else float(np.float32(draw.gauss(0, 1)))
        missing = draw.randint(0, 1) if gaps else 0
        rows[place] = (tree, node, draw.randrange(features), split, draw.choice(modes), *pair, missing)
        return node

    for tree in range(trees):
        grow(tree, len(rows), draw.randint(1, 5))
    names = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
    columns = list(zip(*rows, strict=True))
    nodes = {f"nodes_{name}": list(column) for name, column in zip(names, columns, strict=False)}
    if gaps:
        nodes["nodes_missing_value_tracks_true"] = list(columns[-1])
    x = np.array(normal(draw, 20, features)) * np.float32(2)
    x = x.round() if whole else x
    if gaps:
        x[np.abs(x) > 2.5] = np.nan
    return Grown(nodes, leaves, x, trees)


def _weighed(draw: random.Random, kind: str, spoken: Sequence[tuple[int, int, int]], sign: float) -> dict[str, object]:
    weights = [w if sign == 0 else abs(w) * sign for w in listed(draw, len(spoken))]
    columns = {"treeids": 0, "nodeids": 1, "ids": 2}
    found: dict[str, object] = {f"{kind}_{name}": [s[i] for s in spoken] for name, i in columns.items()}
    return {**found, f"{kind}_weights": weights}


def tree_regressor(draw: random.Random) -> Drawn:
    trees, targets = grown(draw), draw.choice([1, 1, 2, 3])
    often = draw.choice([0.6, 1.0])
    spoken = [(t, n, k) for t, n in trees.leaves for k in range(targets) if draw.random() < often]
    spoken = spoken or [(*trees.leaves[0], 0)]
    stated: dict[str, object] = {**trees.nodes, **_weighed(draw, "target", spoken, 0)}
    stated |= {"n_targets": targets, "aggregate_function": draw.choice(["SUM", "AVERAGE", "MIN", "MAX"])}
    stated["post_transform"] = draw.choice(TRANSFORMS)
    if draw.random() < 0.5:
        stated["base_values"] = listed(draw, targets)
    if draw.random() < 0.5:
        return model_of("TreeEnsembleRegressor", {"x": trees.x}, [FLOAT], **stated)
    for name in ("nodes_values", "target_weights", "base_values"):
        if name in stated:
            numbers = [float(v) for v in stated.pop(name)]  # type: ignore[union-attr]
            stated[f"{name}_as_tensor"] = helper.make_tensor(name, TensorProto.DOUBLE, [len(numbers)], numbers)
    return model_of("TreeEnsembleRegressor", {"x": trees.x.astype(np.float64)}, [FLOAT], **stated)


def tree_classifier(draw: random.Random) -> Drawn:
    trees, classes = grown(draw), draw.choice([2, 2, 2, 3, 4])
    spoken = draw.choice(
        [
            [(t, n, k) for t, n in trees.leaves for k in range(classes)],
            [(t, n, t % classes) for t, n in trees.leaves],
            [(t, n, 0) for t, n in trees.leaves],
            [(t, n, classes - 1) for t, n in trees.leaves],
        ]
    )
    stated: dict[str, object] = {**trees.nodes, **_weighed(draw, "class", spoken, draw.choice([0, 1 / trees.trees]))}
    stated |= {"classlabels_int64s": draw.sample(range(9), classes), "post_transform": draw.choice(TRANSFORMS)}
    if draw.random() < 0.4:
        stated["base_values"] = listed(draw, classes)
    return model_of("TreeEnsembleClassifier", {"x": trees.x}, [INT64, FLOAT], **stated)


ML: Mapping[str, Callable[[random.Random], Drawn]] = {
    "Scaler": scaler,
    "Normalizer": normalizer,
    "Binarizer": binarizer,
    "Imputer": imputer,
    "OneHotEncoder": one_hot,
    "LabelEncoder": label_encoder,
    "LinearRegressor": linear_regressor,
    "LinearClassifier": linear_classifier,
    "SVMRegressor": support_vectors,
    "SVMClassifier": support_classifier,
    "TreeEnsembleRegressor": tree_regressor,
    "TreeEnsembleClassifier": tree_classifier,
}
