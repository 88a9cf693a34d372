"""The op that is one operator of ONNX in other words: TfIdfVectorizer, told back from what it became.

Takes operands; gives one. Invariant: every sequence that counts is told with its column and its weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tessera_build.frontends.onnx.errors import unsupported
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.op import flag_of, int_of

_FIRST_NODE = 1


def _count_grams(site: Site) -> Operand:
    """The sequences that lead to each column, read off the trie."""
    tables = [site.arrays[i] for i in range(1, 5)]
    if any(table is None for table in tables):
        raise unsupported("a trie that is computed has no form in ONNX")
    grams = _grams([table for table in tables if table is not None])
    if not grams:
        raise unsupported("a pool without sequences has no form in ONNX")
    longest = int_of(site.attributes, "longest")
    ordered = sorted(grams, key=lambda gram: (len(gram[0]), gram[0]))
    pool = [token for tokens, _, _ in ordered for token in tokens]
    begins = [sum(len(g[0]) for g in ordered if len(g[0]) < length) for length in range(1, longest + 1)]
    last = flag_of(site.attributes, "last")
    weighted = any(weight != 1 for *_, weight in ordered)
    weights = {"weights": tuple(weight for *_, weight in ordered)} if weighted or last else {}
    return site.writer.emit(
        "TfIdfVectorizer",
        site.inputs[0],
        dtype=F32,
        mode="IDF" if last else "TFIDF" if weighted else "TF",
        min_gram_length=1,
        max_gram_length=longest,
        max_skip_count=int_of(site.attributes, "strides") - 1,
        ngram_counts=tuple(begins),
        ngram_indexes=tuple(target for _, target, _ in ordered),
        pool_int64s=tuple(pool),
        **weights,
    )


def _grams(tables: Sequence[Array]) -> list[tuple[tuple[int, ...], int, float]]:
    """Tokens, column and weight of each sequence that counts."""
    base, parents, targets, weights = (table.tolist() for table in tables)
    children: dict[int, list[int]] = {}
    for place, parent in enumerate(parents):
        children.setdefault(parent, []).append(place)
    found: list[tuple[tuple[int, ...], int, float]] = []
    waiting: list[tuple[int, tuple[int, ...]]] = [(_FIRST_NODE, ())]
    while waiting:
        node, tokens = waiting.pop()
        if tokens and targets[node] >= 0:
            found.append((tokens, targets[node], float(np.float32(weights[node]))))
        waiting += [(place, (*tokens, place - base[node])) for place in children.get(node, ()) if place != node]
    return found


WHOLE_WRITERS: Mapping[str, WriteNode] = {"count_grams": _count_grams}
