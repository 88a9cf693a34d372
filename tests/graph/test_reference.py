"""The interpreter: binding of dims, checks of inputs, chosen values."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.reference import run, run_all
from tests.graph.graphs import assert_close, normal

N, S = symbol("N"), symbol("S")


def sample() -> tuple[Module, dict[str, int]]:
    b = GraphBuilder(dims={"N": (1, 4)})
    x, y = b.input("x", tensor(F32, N, S)), b.input("y", tensor(F32, N, S + 1))
    joined = b.op("concat", x, y, axis=1)
    length = b.op("dimension", value=2 * S + 1, dtype=F32)
    mean = b.op("div", b.op("reduce", joined, kind="sum", axes=(1,)), length)
    b.output("mean", mean)
    b.guard(S, ">=", 2, "sequences of at least two")
    return b.finish(), {"joined": joined, "length": length}


@pytest.mark.numerics
def test_run_when_dims_are_symbolic_then_binds_them_from_shapes() -> None:
    module, _ = sample()
    x, y = normal(0, 3, 4), normal(1, 3, 5)
    expected = np.concatenate([x, y], 1).mean(1)
    assert_close(run(module, "main", {"x": x, "y": y})["mean"], expected, rtol=1e-6)


@pytest.mark.numerics
def test_run_all_when_values_are_wanted_then_gives_exactly_those() -> None:
    module, values = sample()
    x, y = normal(0, 3, 4), normal(1, 3, 5)
    found = run_all(module, "main", {"x": x, "y": y}, values.values())
    assert found.keys() == set(values.values())
    np.testing.assert_array_equal(found[values["joined"]], np.concatenate([x, y], 1))
    assert found[values["length"]] == 9


@pytest.mark.errors
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (normal(0, 3, 4), normal(1, 3, 4), "S': 4"),
        (normal(0, 3, 4), normal(1, 2, 5), "does not fit"),
        (normal(0, 3, 4).astype(np.float64), normal(1, 3, 5), "float64"),
        (normal(0, 3), normal(1, 3, 5), "does not fit"),
        (normal(0, 5, 4), normal(1, 5, 5), "out of its range"),
        (normal(0, 3, 1), normal(1, 3, 2), "at least two"),
    ],
)
def test_run_when_inputs_do_not_fit_then_error(x: np.ndarray, y: np.ndarray, words: str) -> None:
    module, _ = sample()
    with pytest.raises(TesseraError) as caught:
        run(module, "main", {"x": x, "y": y})
    assert words in caught.value.diagnostics()


@pytest.mark.errors
def test_run_when_names_differ_then_error() -> None:
    module, _ = sample()
    with pytest.raises(TesseraError, match="other names"):
        run(module, "main", {"x": normal(0, 3, 4)})


@pytest.mark.errors
def test_run_when_no_input_binds_a_dim_then_error() -> None:
    b = GraphBuilder()
    b.output("y", b.op("neg", b.input("x", tensor(F32, 2 * N))))
    with pytest.raises(TesseraError, match="no input has dim N"):
        run(b.finish(), "main", {"x": normal(0, 4)})


@pytest.mark.errors
def test_run_when_index_is_out_of_range_then_error_says_where() -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(I64, 2))
    b.output("y", b.op("gather", b.constant(normal(0, 3, 2)), x, axis=0))
    with pytest.raises(TesseraError, match="INDEX_OUT_OF_RANGE"):
        run(b.finish(), "main", {"x": np.array([0, 3])})
