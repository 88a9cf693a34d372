"""TfIdfVectorizer over integers agrees with onnxruntime over re-drawn pools, lengths, skips and modes."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from tessera_build.frontends.onnx import ModelError, UnsupportedError, read_onnx
from tessera_build.frontends.onnx.grams import Gram, laid_out
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees
from tests.frontends_onnx.oracle import assert_agrees, make_model

pytestmark = pytest.mark.numerics

POOL: dict[str, object] = {
    "mode": "TF",
    "min_gram_length": 1,
    "max_gram_length": 2,
    "max_skip_count": 0,
    "ngram_counts": [0, 2],
    "ngram_indexes": [0, 1, 2],
    "pool_int64s": [5, 6, 5, 6],
}


def vectorizer(attributes: Mapping[str, object], x: Array, dynamic: bool = False) -> onnx.ModelProto:
    """One node over rows of integers."""
    node = helper.make_node("TfIdfVectorizer", ["x"], ["y"], name="node")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    shape = [f"x{axis}" if dynamic else extent for axis, extent in enumerate(x.shape)]
    return make_model([node], {"x": (x.dtype.type, shape)}, ["y"], None, 9)


def drawn(draw: random.Random) -> tuple[onnx.ModelProto, Mapping[str, Array]]:
    """Few different tokens, some of them negative or wide, so that sequences meet."""
    tokens = draw.sample([-7, 0, 1, 2, 3, 40, 2**31 - 1], draw.randint(2, 5))
    longest = draw.randint(1, 4)
    starts: list[int] = []
    pool: list[int] = []
    number = 0
    for length in range(1, longest + 1):
        starts.append(len(pool))
        grams = {tuple(draw.choice(tokens) for _ in range(length)) for _ in range(draw.randint(1, 8))}
        number += len(grams)
        pool += [token for gram in sorted(grams) for token in gram]
    columns = draw.sample(range(number + 3), number)
    found: dict[str, object] = {
        "mode": draw.choice(["TF", "IDF", "TFIDF"]),
        "min_gram_length": draw.randint(1, longest),
        "max_gram_length": longest,
        "max_skip_count": draw.randint(0, 4),
        "ngram_counts": starts,
        "ngram_indexes": columns,
        "pool_int64s": pool,
    }
    if draw.random() < 0.6:
        found["weights"] = [draw.randint(1, 9) / 2 for _ in range(number)]
    shape = (draw.randint(1, 9),) if draw.random() < 0.3 else (draw.randint(1, 4), draw.randint(1, 9))
    count = int(np.prod(shape))
    x = np.asarray([draw.choice([*tokens, 99]) for _ in range(count)], draw.choice([np.int32, np.int64]))
    return vectorizer(found, x.reshape(shape), draw.random() < 0.5), {"x": x.reshape(shape)}


@pytest.mark.parametrize("seed", range(60))
def test_vectorizer_when_redrawn_then_agrees(seed: int) -> None:
    model, feeds = drawn(random.Random(seed))
    assert_agrees(model, feeds)


@pytest.mark.parametrize("seed", range(100, 110))
def test_vectorizer_when_built_then_agrees(seed: int) -> None:
    model, feeds = drawn(random.Random(seed))
    assert_built_agrees(model, feeds)


def test_vectorizer_when_rows_are_dynamic_then_one_bundle_serves_all() -> None:
    random_ = np.random.default_rng(0)
    feeds = [{"x": random_.integers(4, 8, shape)} for shape in ((1, 1), (3, 9), (2, 200))]
    assert_built_agrees(vectorizer({**POOL, "max_skip_count": 2}, feeds[0]["x"], dynamic=True), *feeds)


def test_vectorizer_when_no_sequence_is_of_the_length_asked_for_then_gives_zeros() -> None:
    attributes = {**POOL, "max_gram_length": 3, "min_gram_length": 3, "ngram_counts": [0, 2, 4]}
    x = np.asarray([[5, 6, 5], [6, 6, 6]], np.int64)
    assert_built_agrees(vectorizer(attributes, x), {"x": x})


def test_trie_when_its_pool_is_large_then_every_sequence_is_found_in_little_memory() -> None:
    draw, words = np.random.default_rng(1), 2000
    pairs = {(int(a), int(b)) for a, b in draw.integers(0, words, (30_000, 2))} | {(a, 7) for a in range(words)}
    grams = [Gram(tokens, target, 1.0) for target, tokens in enumerate(sorted(pairs))]
    base, parents, targets, _ = laid_out(grams, words)
    assert len(base) < 4 * (len(grams) + words)
    for gram in grams:
        node = 1
        for token in gram.tokens:
            assert parents[base[node] + token] == node
            node = int(base[node] + token)
        assert targets[node] == gram.target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool_int64s": [5, 5, 5, 6]}, "comes twice"),
        ({"ngram_indexes": [0, 1]}, "differ in number"),
        ({"ngram_counts": [0, 3]}, "no whole sequences of 2"),
        ({"min_gram_length": 3}, "do not fit"),
        ({"mode": "DF"}, "unknown"),
    ],
)
def test_vectorizer_when_its_pool_is_broken_then_is_refused(change: Mapping[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_onnx(vectorizer({**POOL, **change}, np.zeros((1, 3), np.int64)))
    assert message in caught.value.diagnostics()


def test_vectorizer_when_its_pool_holds_strings_then_is_refused() -> None:
    attributes = {key: value for key, value in POOL.items() if key != "pool_int64s"}
    with pytest.raises(UnsupportedError, match="strings"):
        read_onnx(vectorizer({**attributes, "pool_strings": ["a", "b", "a", "b"]}, np.zeros((1, 3), np.int64)))
