"""Derivatives of ops that read regions of images, and that they mean what they are written out as."""

from __future__ import annotations

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I64, Type, tensor
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.composed import COMPOSED
from tessera_build.ir.graph.nodes import Array, Attribute, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.ir.graph.spec import verify_module
from tests.autodiff.checking import check, f64, module_of
from tests.autodiff.models import only, widened
from tests.lower.compiled import check_module

pytestmark = pytest.mark.unit

R = symbol("R")
SAMPLED = [f64(2, 6, 5, 2), tensor(I64, R), f64(R, 2), f64(R, 2), tensor(I64, R, 2)]


def _sampled(kind: str, counts: Array | None = None) -> Module:
    """Regions of images; `counts`: of samples, where they are known when it is built."""
    types = SAMPLED if counts is None else [tensor(t.dtype, *(3 if e == R else e for e in t.shape)) for t in SAMPLED]

    def make(b: GraphBuilder, x: list[int]) -> int:
        number = x[4] if counts is None else b.constant(counts)
        return b.op("sample_regions", *x[:4], number, kind=kind, bins=(2, 3))

    return module_of(make, types if counts is None else types[:4])


def _regions(seed: int) -> dict[str, Array]:
    """Three regions, one of which leaves its image, with up to three samples along an axis of each bin."""
    rng = np.random.default_rng(seed)
    return {
        "x0": rng.standard_normal((2, 6, 5, 2)),
        "x1": np.array([1, 0, 1]),
        "x2": np.array([[0.3, 0.7], [1.1, -1.9], [2.2, 0.4]]) + rng.uniform(0, 0.1, (3, 2)),
        "x3": np.array([[1.3, 0.9], [2.1, 1.4], [0.7, 1.1]]) + rng.uniform(0, 0.1, (3, 2)),
        "x4": np.array([[2, 1], [1, 3], [0, 2]]),
    }


@pytest.mark.numerics
@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("known", [False, True])
def test_sampled_regions_when_differentiated_then_agree_with_differences(kind: str, known: bool) -> None:
    inputs = _regions(1)
    module = _sampled(kind, inputs.pop("x4") if known else None)
    check(module, inputs, order=1)


@pytest.mark.numerics
def test_largest_of_regions_when_differentiated_then_agree_with_differences() -> None:
    """Its images are float32, which is widened for the differences."""
    types = [tensor(F32, 2, 5, 4, 2), tensor(I64, R), tensor(I64, R, 2, 2), tensor(I64, R, 3, 2)]
    module = module_of(lambda b, x: _written(b, "max_regions", x), types)
    rng = np.random.default_rng(3)
    rows, columns = (np.sort(rng.integers(0, n + 1, (3, b, 2)), -1) for n, b in ((5, 2), (4, 3)))
    inputs = {"x0": rng.standard_normal((2, 5, 4, 2)), "x1": np.array([1, 0, 1]), "x2": rows, "x3": columns}
    check(widened(module), inputs)


def _written(b: GraphBuilder, op: str, x: list[int], **attributes: Attribute) -> int:
    return COMPOSED[op](b, x, attributes)


def _both(op: str, types: list[Type], inputs: dict[str, Array], **attributes: Attribute) -> None:
    """The op and what it is written out as, side by side."""
    module = module_of(lambda b, x: [b.op(op, *x, **attributes), _written(b, op, x, **attributes)], types)
    verify_module(module)
    found = run(module, "main", inputs)
    np.testing.assert_allclose(found["y1"].astype(np.float64), found["y0"].astype(np.float64), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_sampled_regions_when_written_out_then_are_the_same(kind: str) -> None:
    _both("sample_regions", SAMPLED, _regions(2), kind=kind, bins=(2, 3))


def test_largest_of_regions_when_written_out_then_is_the_same() -> None:
    rng = np.random.default_rng(4)
    rows, columns = (np.sort(rng.integers(0, n + 1, (4, b, 2)), -1) for n, b in ((5, 2), (4, 3)))
    x = rng.standard_normal((2, 5, 4, 2)).astype(np.float32)
    x[0, 1, 1] = np.nan
    types = [tensor(F32, 2, 5, 4, 2), tensor(I64, R), tensor(I64, R, 2, 2), tensor(I64, R, 3, 2)]
    _both("max_regions", types, {"x0": x, "x1": np.array([1, 0, 1, 0]), "x2": rows, "x3": columns})


def test_coupled_when_written_out_then_is_the_same() -> None:
    upper = np.triu(np.random.default_rng(5).uniform(0.05, 0.95, (6, 4, 4)), 1)
    pairs = upper + np.tril(1 - upper.transpose(0, 2, 1), -1)
    _both("coupled", [tensor(F32, R, 4, 4)], {"x0": pairs.astype(np.float32)})


@pytest.mark.numerics
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_gradient_of_regions_when_compiled_then_is_that_of_the_reference(kind: str) -> None:
    module = _sampled(kind)
    derived = only(with_grad(module, "main", ["x0", "x2", "x3"]), "main_grad")
    cotangent = np.random.default_rng(6).standard_normal((3, 2, 3, 2))
    check_module(run_passes(derived, verify_each=True), {**_regions(7), "y0_cotangent": cotangent}, {"R": 3})


def test_coupled_when_differentiated_then_is_refused() -> None:
    module = module_of(lambda b, x: b.op("coupled", x[0]), [tensor(F32, R, 4, 4)])
    with pytest.raises(TesseraError, match="stops its iterations by a tolerance"):
        with_grad(module, "main", ["x0"])


@pytest.mark.numerics
def test_table_when_its_values_are_differentiated_then_agrees_with_differences() -> None:
    types = [tensor(I64, R), f64(3), f64()]
    keys = np.array([2, 5, 7])
    module = module_of(lambda b, x: b.op("look_up", x[0], b.constant(keys), x[1], x[2]), types)
    rng = np.random.default_rng(8)
    inputs = {"x0": np.array([5, 1, 7, 5]), "x1": rng.standard_normal(3), "x2": rng.standard_normal(())}
    check(module, inputs, order=2)
