"""TfIdfVectorizer over integers: how often the sequences of a pool occur in each row.

Takes rows of integers and a pool of sequences; gives `look_up`, which numbers the integers, and `count_grams` over a
trie of these numbers. Invariant: strings are refused, and what a sequence of the pool is called twice is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.frontends.onnx.errors import ill_formed, unsupported
from tessera_build.ir.core.types import F32, I32, I64
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.ops.shapes import count

_MODES = ("TF", "IDF", "TFIDF")
# The trie's numbers are of 32 bits; a pool so large would be a gigabyte.
_MOST_NODES = 1 << 26
_TRIES = 256
_STRINGS = "strings are refused: number the words outside the model, and give the pool as integers"


@dataclass(frozen=True, slots=True)
class Gram:
    """A sequence of the pool, the column of the result that it counts for, and its weight."""

    tokens: tuple[int, ...]
    target: int
    weight: float


def _vectorize(c: Context, n: Call) -> Tensor:
    x, grams = n.input(0), _grams(n)
    mode, longest = n.text("mode"), n.integer("max_gram_length")
    if x.dtype not in (I32, I64) or x.rank not in (1, 2):
        raise ill_formed("TfIdfVectorizer takes rows of integers", found=str(x.type))
    if mode not in _MODES:
        raise ill_formed("TfIdfVectorizer's mode is unknown", expected=" | ".join(_MODES), found=mode)
    width = max(n.integers("ngram_indexes")) + 1
    skips = n.integer("max_skip_count") if longest > 1 else 0
    n.ignore("max_skip_count")
    if not grams:
        return c.broadcast_to(c.scalar(0.0, F32), (*x.shape[:-1], width))
    words = np.unique(np.asarray([token for gram in grams for token in gram.tokens], np.int64))
    numbers = {int(word): number for number, word in enumerate(words)}
    trie = laid_out([Gram(tuple(numbers[t] for t in g.tokens), g.target, g.weight) for g in grams], len(words))
    flat = c.cast(c.reshape(x, (count(x.shape),)), I64)
    places = c.constant(np.arange(len(words), dtype=np.int32))
    known = c.op("look_up", flat, c.constant(words), places, c.scalar(len(words), I32))
    rows = c.reshape(known, x.shape if x.rank == 2 else (1, *x.shape))
    last = mode == "IDF"
    tables = (c.constant(table) for table in trie)
    found = c.op("count_grams", rows, *tables, width=width, longest=longest, strides=skips + 1, last=last)
    return c.reshape(found, (*x.shape[:-1], width))


def _grams(n: Call) -> list[Gram]:
    """The sequences of the pool whose lengths are asked for."""
    if n.has("pool_strings") and n.words("pool_strings", ()):
        raise unsupported("TfIdfVectorizer counts strings", hint=_STRINGS)
    shortest, longest = n.integer("min_gram_length"), n.integer("max_gram_length")
    starts, pool, targets = n.integers("ngram_counts"), n.integers("pool_int64s"), n.integers("ngram_indexes")
    weights = n.numbers("weights", ()) if n.text("mode") != "TF" else ()
    n.ignore("weights")
    if not 1 <= shortest <= longest or not targets or min(targets) < 0 or n.integer("max_skip_count") < 0:
        raise ill_formed("TfIdfVectorizer's lengths, skips and indices do not fit", found=f"{shortest} to {longest}")
    found: list[tuple[int, ...]] = []
    for length, (first, end) in enumerate(zip(starts, (*starts[1:], len(pool)), strict=True), 1):
        if not 0 <= first <= end <= len(pool) or (end - first) % length:
            raise ill_formed(f"TfIdfVectorizer's pool holds no whole sequences of {length}", found=f"{first} to {end}")
        found += [pool[place : place + length] for place in range(first, end, length)]
    if len(found) != len(targets) or (weights and len(weights) != len(targets)) or len(set(found)) < len(found):
        raise ill_formed("TfIdfVectorizer's pool, indices and weights differ in number, or a sequence comes twice")
    rows = zip(found, targets, weights or (1.0,) * len(targets), strict=True)
    return [Gram(*row) for row in rows if shortest <= len(row[0]) <= longest]


@dataclass(slots=True)
class _Trie:
    """Nodes by number, while they get their places."""

    children: list[dict[int, int]] = field(default_factory=lambda: [{}])
    grams: list[Gram | None] = field(default_factory=lambda: [None])

    def add(self, gram: Gram) -> None:
        """A path for one sequence."""
        node = 0
        for token in gram.tokens:
            known = self.children[node].get(token)
            if known is None:
                known = self.children[node][token] = len(self.children)
                self.children.append({})
                self.grams.append(None)
            node = known
        self.grams[node] = gram


def laid_out(grams: Sequence[Gram], words: int) -> tuple[Array, ...]:
    """base, parents, targets and weights of the trie of sequences of numbers below `words`, as `count_grams` has them.

    Any token may be `words` too, which is in no sequence.
    """
    trie = _Trie()
    for gram in grams:
        trie.add(gram)
    places, base = _placed(trie.children)
    size = max(base.values()) + words + 1
    if size > _MOST_NODES:
        raise unsupported("TfIdfVectorizer's pool is larger than Tessera builds", found=f"{size} nodes")
    tables = np.zeros(size, np.int32), np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    weights = np.zeros(size, np.float32)
    for node, children in enumerate(trie.children):
        tables[0][places[node]] = base.get(node, 0)
        for child in children.values():
            tables[1][places[child]] = places[node]
        gram = trie.grams[node]
        if gram is not None:
            tables[2][places[node]], weights[places[node]] = gram.target, gram.weight
    return (*tables, weights)


def _placed(children: Sequence[Mapping[int, int]]) -> tuple[Mapping[int, int], Mapping[int, int]]:
    """The place of every node, and where its children begin: those with most children first, others in the gaps."""
    places, base, taken, behind = {0: 1}, {0: 0}, {0, 1}, 2
    nexts: dict[int, int] = {}  # where to look on for children of which this token is the first
    for node in sorted((n for n in range(len(children)) if children[n]), key=lambda n: (-len(children[n]), n)):
        tokens = sorted(children[node])
        start = nexts.get(tokens[0], 0)
        tries = range(start, start + _TRIES)
        free = (tried for tried in tries if taken.isdisjoint(tried + token for token in tokens))
        start = next(free, max(behind - tokens[0], 0))
        base[node], nexts[tokens[0]] = start, start + 1
        for token in tokens:
            places[children[node][token]] = start + token
            taken.add(start + token)
        behind = max(behind, start + tokens[-1] + 1)
    return places, base


GRAM_OPERATORS: Mapping[str, Translator] = {"TfIdfVectorizer": _vectorize}
