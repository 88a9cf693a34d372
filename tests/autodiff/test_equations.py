"""Derivatives of linear equations whose matrix is only applied, and checks of what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from bundle_format.errors import TesseraError
from tessera_build.ir.core.types import BOOL, tensor
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Attribute, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tests.autodiff.checking import Floats, assert_near, check, f64, module_of

pytestmark = pytest.mark.unit


def equation(b: GraphBuilder, right: int, apply: Callable[[int], int], **how: Attribute) -> tuple[int, ...]:
    """A linear equation with the map that `apply` writes."""
    with b.region([b.type(right)]) as block:
        block.yields(apply(block.args[0]))
    return b.node("linear_solve", (right,), {"tolerance": 1e-13, **how}, [block.region])


def product(b: GraphBuilder, matrix: int, vector: int) -> int:
    """A matrix times a vector."""
    size = b.type(vector).shape[0]
    return b.op("reshape", b.op("matmul", matrix, b.op("reshape", vector, shape=(size, 1))), shape=(size,))


def module(size: int, **how: Attribute) -> Module:
    """x with (exp(A) elementwise, made symmetric for cg) x = b."""

    def make(b: GraphBuilder, inputs: list[int]) -> int:
        grown = b.op("exp", inputs[0])
        matrix = b.op("add", grown, b.op("transpose", grown, perm=(1, 0))) if how.get("kind") == "cg" else grown
        x, solved = equation(b, inputs[1], lambda t: product(b, matrix, t), **how)
        return b.op("checked", x, solved, message="no solution")

    return module_of(make, [f64(size, size), f64(size)])


def drawn(size: int, seed: int = 0) -> Mapping[str, Floats]:
    """A matrix whose exponentials have heavy diagonals, and a right side."""
    rng = np.random.default_rng(seed)
    return {"x0": rng.uniform(-3, -2, (size, size)) + np.eye(size) * 3, "x1": rng.standard_normal(size)}


@pytest.mark.parametrize("kind", ["gmres", "cg"])
def test_solution_when_differentiated_twice_then_equals_differences(kind: str) -> None:
    check(module(5, kind=kind), drawn(5), order=2)


@pytest.mark.parametrize(("kind", "restart"), [("gmres", 30), ("gmres", 7), ("cg", 30)])
def test_passes_when_they_write_the_iteration_then_it_solves_as_the_reference_does(kind: str, restart: int) -> None:
    source, given = with_grad(module(40, kind=kind, restart=restart), "main", ["x0", "x1"]), drawn(40)
    given = {**given, "y0_cotangent": np.random.default_rng(1).standard_normal(40)}
    written = run_passes(source, verify_each=True)
    assert not {n.op for n in graph_nodes(written.entries["main_grad"])} & {"linear_solve", "checked"}
    expected = reference.run(source, "main_grad", given)
    found = reference.run(written, "main_grad", given)
    for name, value in expected.items():
        assert_near(found[name], value, name)
    matrix = np.exp(given["x0"])
    matrix = matrix + matrix.T if kind == "cg" else matrix
    assert_near(found["y0"], np.linalg.solve(matrix, given["x1"]), "solution")
    assert_near(found["x1_gradient"], np.linalg.solve(matrix.T, given["y0_cotangent"]), "gradient")


@pytest.mark.parametrize("passed", [False, True])
@pytest.mark.parametrize(("kind", "limit"), [("gmres", 3), ("cg", 3)])
def test_solution_when_not_reached_then_the_run_ends(kind: str, limit: int, passed: bool) -> None:
    source = module(40, kind=kind, limit=limit)
    with pytest.raises(TesseraError) as caught:
        reference.run(run_passes(source) if passed else source, "main", drawn(40))
    assert (caught.value.code, caught.value.message) == ("GUARD_FAILED", "no solution")


@pytest.mark.parametrize("passed", [False, True])
def test_map_when_it_is_singular_then_no_solution_is_claimed(passed: bool) -> None:
    def make(b: GraphBuilder, inputs: list[int]) -> tuple[int, ...]:
        return equation(b, inputs[1], lambda t: product(b, inputs[0], t))

    source = module_of(make, [f64(3, 3), f64(3)])
    source = run_passes(source) if passed else source
    singular = np.array([[1.0, 2, 3], [2, 4, 6], [0, 0, 1]])
    assert not reference.run(source, "main", {"x0": singular, "x1": np.ones(3)})["y1"]
    inside = reference.run(source, "main", {"x0": singular, "x1": singular @ np.ones(3)})
    assert inside["y1"]
    assert_near(singular @ inside["y0"], singular @ np.ones(3), "a solution of many")
    nothing = reference.run(source, "main", {"x0": singular, "x1": np.zeros(3)})
    assert nothing["y1"]
    assert not nothing["y0"].any()


def test_maps_when_one_stands_inside_another_then_each_copy_is_written() -> None:
    """(A (B^-1 t)) x = b has the solution B A^-1 b."""

    def make(b: GraphBuilder, inputs: list[int]) -> int:
        def apply(t: int) -> int:
            inner, good = equation(b, t, lambda u: product(b, inputs[1], u))
            return product(b, inputs[0], b.op("checked", inner, good, message="inner"))

        x, good = equation(b, inputs[2], apply)
        return b.op("checked", x, good, message="outer")

    source = module_of(make, [f64(4, 4), f64(4, 4), f64(4)])
    rng = np.random.default_rng(0)
    a, b = (np.eye(4) + 0.2 * rng.standard_normal((4, 4)) for _ in range(2))
    given = {"x0": a, "x1": b, "x2": rng.standard_normal(4)}
    written = run_passes(source, verify_each=True)
    assert {message for *_, message in written.guards} == {"inner", "outer"}
    assert_near(reference.run(written, "main", given)["y0"], b @ np.linalg.solve(a, given["x2"]), "nested")
    check(source, given)


def test_condition_when_it_holds_then_the_value_goes_on_and_else_the_message() -> None:
    builder = GraphBuilder()
    x, holds = builder.input("x", f64(2)), builder.input("holds", tensor(BOOL))
    builder.output("y", builder.op("checked", x, holds, message="as the author says"))
    for source in (builder.finish(), run_passes(builder.finish())):
        given = {"x": np.array([1.0, 2.0]), "holds": np.asarray(True)}
        np.testing.assert_array_equal(reference.run(source, "main", given)["y"], [1, 2])
        with pytest.raises(TesseraError, match="as the author says"):
            reference.run(source, "main", {**given, "holds": np.asarray(False)})
