"""TreeEnsembleRegressor, TreeEnsembleClassifier and TreeEnsemble.

Takes rows of features and the lists that describe trees; gives `tree_ensemble` and what follows it. Invariant: the
conventions for results of two classes are onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.frontends.onnx.ml.forest import LEAF, MODES, Branch, Forest, Leaf, forest, members
from tessera_build.frontends.onnx.ml.scores import (
    TRANSFORMS,
    chosen,
    first_largest,
    labels_of,
    matrix,
    named,
    numbers,
    post_transform,
    regressed,
    spelled,
    transformed,
)
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.nodes import Array

_AGGREGATES = {"SUM": "sum", "AVERAGE": "sum", "MIN": "min", "MAX": "max"}
_AGGREGATES_V5 = ("AVERAGE", "SUM", "MIN", "MAX")
_SPARSE = "give every leaf a weight for each class, zero where it has none"
Weights = Mapping[tuple[int, int], Sequence[tuple[int, float]]]


def _values(n: Call, name: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
    """A list of floats, or the tensor that may stand in its place since version 3."""
    if n.has(f"{name}_as_tensor"):
        stated = n.value(f"{name}_as_tensor")
        n.ignore(name)
        if isinstance(stated, np.ndarray):
            return tuple(float(v) for v in stated.astype(np.float64).reshape(-1))
    return n.numbers(name, default)


def _weights(n: Call, kind: str) -> tuple[Weights, tuple[int, ...], tuple[float, ...]]:
    """The weights of every leaf by tree and node; their targets and weights as stated."""
    targets, weights = n.integers(f"{kind}_ids"), _values(n, f"{kind}_weights")
    places = zip(n.integers(f"{kind}_treeids"), n.integers(f"{kind}_nodeids"), strict=True)
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for place, target, weight in zip(places, targets, weights, strict=True):
        found.setdefault(place, []).append((target, weight))
    return found, targets, weights


def _nodes(n: Call, weights: Weights) -> tuple[list[Branch | Leaf], list[int]]:
    """The nodes of versions 1 to 3 and the roots: nodes that are nobody's child."""
    n.ignore("nodes_hitrates", "nodes_hitrates_as_tensor")
    trees, ids, modes = n.integers("nodes_treeids"), n.integers("nodes_nodeids"), n.words("nodes_modes")
    features, splits = n.integers("nodes_featureids"), _values(n, "nodes_values")
    true, false = n.integers("nodes_truenodeids"), n.integers("nodes_falsenodeids")
    missing = n.integers("nodes_missing_value_tracks_true", ()) or (0,) * len(ids)
    row = {place: position for position, place in enumerate(zip(trees, ids, strict=True))}
    nodes: list[Branch | Leaf] = []
    children: set[int] = set()
    for position, (tree, mode) in enumerate(zip(trees, modes, strict=True)):
        if mode == LEAF:
            nodes.append(Leaf(tuple(weights.get((tree, ids[position]), ()))))
            continue
        if mode not in MODES[:-1]:
            raise ill_formed(f"{n.op} has an unknown mode", found=mode)
        pair = (row.get((tree, true[position]), -1), row.get((tree, false[position]), -1))
        children.update(pair)
        nodes.append(Branch(features[position], mode, splits[position], *pair, missing=bool(missing[position])))
    roots = [position for position in range(len(nodes)) if position not in children]
    if len(roots) != len(set(trees)) or not _all_reached(nodes, roots):
        raise ill_formed(
            f"{n.op}'s nodes are not one tree for each tree number",
            expected=str(len(set(trees))),
            found=str(len(roots)),
        )
    return nodes, roots


def _all_reached(nodes: Sequence[Branch | Leaf], roots: Sequence[int]) -> bool:
    """Whether every condition is met on the way from some root: nodes in a circle are not."""
    reached, waiting = set(roots), list(roots)
    while waiting:
        node = nodes[waiting.pop()]
        following = {node.true, node.false} - reached - {-1} if isinstance(node, Branch) else set[int]()
        reached |= following
        waiting += following
    return all(isinstance(node, Leaf) or position in reached for position, node in enumerate(nodes))


def _ensemble(c: Context, n: Call, grown: Forest) -> Tensor:
    x = matrix(c, numbers(c, n), n.op)
    needed = int(grown.attributes["columns"])
    c.require(x.shape[1], ">=", needed, f"{n.op}'s trees ask for more features than there are")
    return c.op("tree_ensemble", x, *(c.constant(table) for table in grown.tables), **grown.attributes)


def _dtype(n: Call) -> np.dtype[np.generic]:
    return np.dtype(np.float64) if n.input(0).dtype.name == "f64" else np.dtype(np.float32)


def _aggregated(c: Context, n: Call, grown: Forest, trees: int, aggregate: str) -> Tensor:
    scores = _ensemble(c, n, grown)
    return c.op("div", scores, c.scalar(float(trees), scores.dtype)) if aggregate == "AVERAGE" else scores


def _based(c: Context, scores: Tensor, base: Sequence[float]) -> Tensor:
    if not base:
        return scores
    return c.op("add", scores, c.constant(np.asarray(base, np.float64).astype(scores.dtype.numpy)))


def _regressor(c: Context, n: Call) -> Tensor:
    aggregate = n.text("aggregate_function", "SUM")
    if aggregate not in _AGGREGATES:
        raise ill_formed(f"{n.op} aggregates by an unknown word", found=aggregate)
    weights, ids, _ = _weights(n, "target")
    nodes, roots = _nodes(n, weights)
    targets = n.integer("n_targets", 1)
    if any(not 0 <= target < targets for target in ids):
        raise ill_formed("a leaf speaks of a target that there is not", expected=f"0 to {targets - 1}")
    base = _values(n, "base_values", ())
    if base and len(base) != targets:
        raise ill_formed(f"{n.op} has another number of base values", expected=str(targets), found=str(len(base)))
    # onnxruntime adds base values to what some leaf speaks of, or to the only target there is.
    told = bool(base) and targets > 1 and not set(range(targets)) <= _always_scored(n, weights)
    if told or targets == 1:
        nodes = [_telling(node, targets) for node in nodes]
    grown = forest(nodes, roots, targets * (1 + told), _AGGREGATES[aggregate], _dtype(n))
    scores = _aggregated(c, n, grown, len(roots), aggregate)
    if told:
        scores, spoken = (c.slice(scores, (0, k), (scores.shape[0], k + targets)) for k in (0, targets))
        is_spoken = c.op("gt", spoken, c.scalar(0.0, spoken.dtype))
        scores = c.op("select", is_spoken, _based(c, scores, base), scores)
    else:
        scores = _based(c, scores, base)
    return c.cast(regressed(c, scores, post_transform(n)), F32)


def _telling(node: Branch | Leaf, targets: int) -> Branch | Leaf:
    """A leaf that scores one more target for each that it speaks of; of an only target, none is silent: it says 0."""
    if isinstance(node, Branch):
        return node
    if targets == 1:
        return node if node.weights else Leaf(((0, 0.0),))
    return Leaf((*node.weights, *((targets + target, 1.0) for target in {target for target, _ in node.weights})))


def _classifier(c: Context, n: Call) -> tuple[Value, ...]:
    labels, scores = _classified(c, n)
    return spelled(n, "classlabels_strings", labels), c.cast(scores, F32)  # as the operator says, whatever it reads


def _classified(c: Context, n: Call) -> tuple[Tensor, Tensor]:
    weights, ids, values = _weights(n, "class")
    nodes, roots = _nodes(n, weights)
    labels = labels_of(n, "classlabels_int64s", "classlabels_strings", max(ids, default=0) + 1)
    base, word = _values(n, "base_values", ()), post_transform(n)
    grown = forest(nodes, roots, len(labels), "sum", _dtype(n))
    scores = _ensemble(c, n, grown)
    seen = set(ids)
    if (len(labels) == 2 or min(values, default=0.0) < 0) and not seen <= _always_scored(n, weights):
        raise unsupported(f"{n.op} has classes that only some leaves of every tree speak of", hint=_SPARSE)
    if len(labels) == 2:
        return _two_classes(c, scores, _Pair(labels, seen, min(values, default=0.0) >= 0, base, word))
    if len(labels) < 2:
        raise unsupported(f"{n.op} with one label is not built", hint="a classifier has two labels or more")
    scores = _based(c, scores, base)
    counted = np.asarray([0.0 if base or k in seen else -np.inf for k in range(len(labels))])
    ranked = _based(c, scores, counted.tolist()) if counted.any() else scores
    return named(c, first_largest(c, ranked), labels), transformed(c, scores, word)


def _always_scored(n: Call, weights: Weights) -> set[int]:
    """Classes that every leaf of some tree speaks of, so that every row has a score for them."""
    common: dict[int, set[int]] = {}
    places = zip(n.integers("nodes_treeids"), n.integers("nodes_nodeids"), n.words("nodes_modes"), strict=True)
    for tree, node, mode in places:
        if mode == LEAF:
            spoken = {target for target, _ in weights.get((tree, node), ())}
            common[tree] = common.get(tree, spoken) & spoken
    return set[int]().union(*common.values())


@dataclass(frozen=True, slots=True)
class _Pair:
    """What decides how the scores of two classes become results; `seen`: the classes that leaves speak of."""

    labels: tuple[int, ...]
    seen: set[int]
    positive: bool
    base: tuple[float, ...]
    word: str


def _two_classes(c: Context, scores: Tensor, pair: _Pair) -> tuple[Tensor, Tensor]:
    """onnxruntime's results of two classes, which depend on the classes that the leaves speak of."""
    low, high = (c.slice(scores, (0, k), (scores.shape[0], k + 1)) for k in range(2))
    second = 1 in pair.seen
    if len(pair.base) == 2:
        high = _based(c, low if second else high, pair.base[1:])
        low = c.op("neg", high) if second else _based(c, low, pair.base[:1])
    elif len(pair.base) == 1:
        low = _based(c, low, pair.base)
    # A class that no leaf speaks of has no score, not even its base value.
    nothing = c.op("mul", low, c.scalar(0.0, low.dtype))
    low, high = low if 0 in pair.seen else nothing, high if second else nothing
    decisive = high if second else low
    if second or len(pair.base) == 2:
        results = transformed(c, c.op("concat", low, high, axis=1), pair.word)
    else:
        results = _one_score(c, low, pair)
    alone = len(pair.seen) == 1
    threshold = c.scalar(0.5 if alone and pair.positive else 0.0, decisive.dtype)
    holds = c.reshape(c.op("gt", decisive, threshold), (scores.shape[0],))
    return chosen(c, holds, (pair.labels[0], pair.labels[1]) if alone else (0, 1)), results


def _one_score(c: Context, score: Tensor, pair: _Pair) -> Tensor:
    """Two columns from the only score: a probability and its rest, or a score and its negative."""
    if pair.word == "PROBIT":
        raise unsupported("TreeEnsembleClassifier with one score, two labels and PROBIT has no agreed result")
    if pair.positive and pair.word != "LOGISTIC":
        return c.op("concat", c.op("sub", c.scalar(1.0, score.dtype), score), score, axis=1)
    both = c.op("concat", c.op("neg", score), score, axis=1)
    return transformed(c, both, pair.word) if pair.word == "LOGISTIC" else both


def _ensemble_v5(c: Context, n: Call) -> Tensor:
    aggregate = _AGGREGATES_V5[n.integer("aggregate_function", 1)]
    word = TRANSFORMS[n.integer("post_transform", 0)]
    n.ignore("nodes_hitrates")
    nodes = _nodes_v5(n)
    targets, roots = n.integer("n_targets"), n.integers("tree_roots")
    grown = forest(nodes, roots, targets, _AGGREGATES[aggregate], _dtype(n))
    return regressed(c, _aggregated(c, n, grown, len(roots), aggregate), word)


def _array(n: Call, name: str) -> Array:
    value = n.value(name)
    if not isinstance(value, np.ndarray):
        raise ill_formed(f"{n.op}'s attribute {name} is no tensor")
    return value.reshape(-1)


def _nodes_v5(n: Call) -> list[Branch | Leaf]:
    """Branches first, then leaves, then the further conditions that membership in a set takes."""
    splits = _array(n, "nodes_splits").astype(np.float64).tolist()
    modes = [MODES[int(m)] for m in _array(n, "nodes_modes")]
    features, missing = n.integers("nodes_featureids"), n.integers("nodes_missing_value_tracks_true", ())
    true, false = n.integers("nodes_truenodeids"), n.integers("nodes_falsenodeids")
    true_leaf, false_leaf = n.integers("nodes_trueleafs"), n.integers("nodes_falseleafs")
    weights, count = _array(n, "leaf_weights").astype(np.float64).tolist(), len(modes)
    leaves = [Leaf(((t, float(w)),)) for t, w in zip(n.integers("leaf_targetids"), weights, strict=True)]
    stated = _array(n, "membership_values") if n.has("membership_values") else np.zeros(0)
    sets = iter(members(modes, stated.astype(np.float64)))
    nodes: list[Branch | Leaf] = [*(Leaf(()) for _ in modes), *leaves]
    for i, mode in enumerate(modes):
        yes, no = true[i] + count * bool(true_leaf[i]), false[i] + count * bool(false_leaf[i])
        tracked = bool(missing[i]) if missing else False
        if mode != "BRANCH_MEMBER":
            nodes[i] = Branch(features[i], mode, splits[i], yes, no, tracked)
            continue
        chain = [i]
        values = next(sets) or (float("nan"),)
        for _ in values[1:]:
            chain.append(len(nodes))
            nodes.append(Leaf(()))
        for place, value, after in zip(chain, values, [*chain[1:], no], strict=True):
            nodes[place] = Branch(features[i], "BRANCH_EQ", value, yes, after, tracked)
    return nodes


TREE_OPERATORS: Mapping[str, Translator] = {
    "TreeEnsembleRegressor": _regressor,
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsemble": _ensemble_v5,
}
