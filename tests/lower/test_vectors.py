"""Products with one vector, compiled: along rows, and of matrices that data choose."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.assemble import lower_module
from tests.lower.compiled import check_module
from tests.lower.execution import AVX2, AVX512

pytestmark = pytest.mark.numerics
N = symbol("N")
EXPERTS, WIDE, DEPTH = 5, 37, 50


def _experts(tokens: Extent, *, across: bool) -> Module:
    """Each token times the matrix of its expert, gated, and weighted."""
    rng, b = np.random.default_rng(2), GraphBuilder(dims={"N": (1, None)})
    x, chosen = b.input("x", tensor(F32, tokens, DEPTH)), b.input("chosen", tensor(I64, tokens))
    gate = b.input("gate", tensor(F32, tokens, 1))
    stored = (EXPERTS, DEPTH, WIDE) if across else (EXPERTS, WIDE, DEPTH)
    matrices = b.op("gather", b.constant(rng.standard_normal(stored).astype(np.float32)), chosen, axis=0)
    column = b.op("reshape", x, shape=(tokens, DEPTH, 1))
    product = b.op("matmul", matrices, column, transpose_a=across)
    flat = b.op("reshape", product, shape=(tokens, WIDE))
    b.output("y", b.op("mul", b.op("mul", flat, b.op("logistic", flat)), gate))
    return b.finish()


def _inputs(tokens: int) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    return {
        "x": rng.standard_normal((tokens, DEPTH)).astype(np.float32),
        "chosen": rng.integers(-EXPERTS, EXPERTS, tokens),
        "gate": rng.standard_normal((tokens, 1)).astype(np.float32),
    }


@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
@pytest.mark.parametrize("tokens", [1, 6, N], ids=str)
@pytest.mark.parametrize("across", [False, True])
def test_experts_when_data_choose_them_then_each_token_has_its_own(
    tokens: Extent, across: bool, machine: CpuMachine | None
) -> None:
    count = tokens if isinstance(tokens, int) else 7
    dims = {} if isinstance(tokens, int) else {"N": count}
    check_module(run_passes(_experts(tokens, across=across)), _inputs(count), dims, machine)


@pytest.mark.unit
@pytest.mark.parametrize("across", [False, True])
def test_experts_when_data_choose_them_then_no_matrix_is_copied(across: bool) -> None:
    (records,) = lower_module(run_passes(_experts(6, across=across)), AVX512).launches
    copied = [
        r.task_name
        for r in records
        if any(len(place.shape) == 3 and set(place.shape[1:]) == {WIDE, DEPTH} for place in r.writes)
    ]
    assert copied == []


@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
@pytest.mark.parametrize(
    ("a", "b", "flags"),
    [
        ((9, 768), (768, 1), ""),
        ((3, 5, 70), (3, 70, 1), ""),
        ((N, 70), (70, 1), ""),
        ((40, N), (N, 1), ""),
        ((70, 33), (70, 1), "a"),
        ((1, 300), (37, 300), "b"),
        ((4, 1, 70), (4, N, 70), "b"),
        ((1, 70), (70, 1), ""),
    ],
)
def test_product_when_one_operand_is_a_vector_then_agrees_with_the_reference(
    a: tuple[Extent, ...], b: tuple[Extent, ...], flags: str, machine: CpuMachine | None
) -> None:
    builder = GraphBuilder(dims={"N": (1, None)})
    x, y = builder.input("a", tensor(F32, *a)), builder.input("b", tensor(F32, *b))
    total = builder.op("matmul", x, y, transpose_a="a" in flags, transpose_b="b" in flags)
    builder.output("y", builder.op("tanh", builder.op("add", total, builder.scalar(0.5, F32))))
    rng, dims = np.random.default_rng(1), {"N": 21} if N in (*a, *b) else {}
    inputs = {
        name: rng.standard_normal([e if isinstance(e, int) else 21 for e in shape]).astype(np.float32)
        for name, shape in (("a", a), ("b", b))
    }
    check_module(run_passes(builder.finish()), inputs, dims, machine)
