"""Sizes that a proof is made on: found where they are rare, and told in words where there are none."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tessera_build.config import ConfigError
from tessera_build.driver.opened import requested_sizes
from tessera_build.ir.core.dims import Extent, Range, floordiv, mod, symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.verify.check import expected_answers
from tessera_build.verify.demands import described
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import choose_sizes, why_none

Guard = tuple[Extent, str, Extent, str]
B, S = symbol("b"), symbol("s")


def asking(guards: Sequence[Guard], **dims: Range) -> Module:
    """A module over these dims that asks this of them."""
    builder = GraphBuilder(dims=dims)
    builder.output("y", builder.op("neg", builder.input("x", tensor(F32, *map(symbol, dims)))))
    return replace(builder.finish(), guards=tuple(guards))


@pytest.mark.unit
def test_choose_sizes_when_one_size_satisfies_the_guards_then_finds_it() -> None:
    # Mamba2, exported for 8 tokens: what is cut off a padded length must be nothing, and one chunk must be all.
    padding = mod(S * -1, 8)
    chunks = floordiv(padding + S, 8)
    guards = [
        (B * chunks * 2, "==", B * (chunks + 1), "do not broadcast"),
        (floordiv(128 * padding, S), "==", 0, "cut"),
    ]
    assert choose_sizes(asking(guards, b=(1, None), s=(1, None))) == ({"b": 3, "s": 8}, {"b": 33, "s": 8})


@pytest.mark.unit
def test_choose_sizes_when_dims_depend_on_each_other_then_finds_them() -> None:
    found = choose_sizes(asking([(7 * B, "==", 5 * S + 1, "odd")], b=(1, None), s=(100, None)))
    assert all(7 * sizes["b"] == 5 * sizes["s"] + 1 and sizes["s"] >= 100 for sizes in found)
    assert len(found) == 2


@pytest.mark.unit
def test_why_none_when_a_range_leaves_a_size_out_then_names_dim_and_size() -> None:
    module = asking([(S, "==", 8 * floordiv(S, 8), "parts of 8"), (B, ">=", 2, "two")], b=(1, None), s=(1, 7))
    why = why_none(module)
    assert why.asked == "s a multiple of 8 (else parts of 8)"
    assert why.ranges == "s from 1 to 7"
    assert "--dims s=8" in why.hint


@pytest.mark.unit
def test_why_none_when_guards_contradict_each_other_then_names_both_and_no_other() -> None:
    guards = [(S, ">=", 9, "nine"), (5, ">=", S, "five"), (B, ">=", 2, "two")]
    why = why_none(asking(guards, b=(1, None), s=(1, None)))
    assert why.asked == "s of at least 9 (else nine); s of at most 5 (else five)"
    assert "static" in why.hint


@pytest.mark.unit
def test_why_none_when_two_dims_are_related_then_tells_the_relation() -> None:
    why = why_none(asking([(B, "==", 2 * S, "twice")], b=(1, 5), s=(3, None)))
    assert why.asked == "b == 2*s (else twice)"
    assert why.ranges == "b from 1 to 5; s of at least 3"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "of no size at all"),
        ([8], "= 8"),
        (range(5, 1025), "of at least 5"),
        (range(1, 8), "of at most 7"),
        (range(3, 8), "from 3 to 7"),
        (range(8, 1025, 8), "a multiple of 8"),
        (range(3, 1025, 8), "one of 3, 11, 19, and so on"),
        ([1, 2, 4, 8], "one of 1, 2, 4, 8"),
        ([1, 2, 4, 8, 16, 32, 64], "one of 1, 2, 4, 8, 16, 32, …"),
    ],
)
def test_described_when_sizes_have_a_form_then_names_it(sizes: Sequence[int], words: str) -> None:
    assert described(sizes) == words


@pytest.mark.unit
def test_proof_when_no_sizes_are_found_then_says_what_is_asked_of_which_dim() -> None:
    with pytest.raises(VerificationError) as caught:
        expected_answers(asking([(S, ">=", 9, "too few")], s=(1, 8)), None)
    error = caught.value
    assert (error.code, error.expected, error.found) == (
        "SIZES_NOT_FOUND",
        "s of at least 9 (else too few)",
        "s from 1 to 8",
    )
    assert error.hint is not None
    assert "--dims s=9" in error.hint


@pytest.mark.unit
def test_requested_sizes_when_the_model_refuses_them_then_says_why() -> None:
    with pytest.raises(ConfigError) as caught:
        requested_sizes(asking([(S, ">=", 9, "too few")], s=(1, None)), {"s": 4})
    assert (caught.value.expected, caught.value.found) == ("s of at least 9 (else too few)", "s = 4")


def test_sizes_when_a_shape_is_empty_then_are_not_chosen() -> None:
    builder = GraphBuilder(dims={"s": (1, None)})
    x = builder.input("x", tensor(F32, S))
    builder.output("y", builder.op("slice", x, starts=(300,), stops=(S,), steps=(1,)))
    (sizes, *_) = choose_sizes(builder.finish())
    assert np.all(sizes["s"] > 300)
