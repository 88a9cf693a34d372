"""If, Loop and Scan: imported, run by the reference interpreter and compared with onnxruntime; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import tessera_build
import tessera_runtime
from tessera_build.frontends.onnx import UnsupportedError, read_onnx, survey_onnx
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.reference import run
from tessera_build.ir.graph.spec import verify_module
from tessera_build.lower.graph_to_schedule.fusion import fuse
from tests.frontends_onnx.control_models import CASES
from tests.frontends_onnx.oracle import expected

pytestmark = pytest.mark.unit


def ops(module: Module) -> set[str]:
    return {node.op for node in module.entries["main"].walk() if isinstance(node, GraphNode)}


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model('<ir_version: 8, opset_import: ["" : 16]>\n' + text)


@pytest.mark.parametrize("name", CASES)
def test_control_flow_when_imported_then_agrees_with_onnxruntime(name: str) -> None:
    case = CASES[name]
    module = read_onnx(case.model())
    verify_module(module)
    optimised = run_passes(module, verify_each=True)
    for inputs in case.inputs:
        wanted = expected(case.model(), inputs)
        for form in (module, optimised):
            found = run(form, "main", inputs)
            for (output, array), reference in zip(found.items(), wanted, strict=True):
                assert array.shape == reference.shape, output
                np.testing.assert_allclose(array.astype(np.float64), reference.astype(np.float64), 1e-5, 1e-6)


def squeezing(extent: str) -> onnx.ModelProto:
    """Exporters' Squeeze: an axis is removed if its extent is 1; what follows fits only then."""
    return parsed(
        f"""g (float[2, {extent}] x) => (float[2] y) {{
            shape = Shape(x)
            last = Constant <value = int64[1] {{1}}> ()
            one = Constant <value = int64[1] {{1}}> ()
            extent = Gather(shape, last)
            single = Equal(extent, one)
            v = If (single) <
                then_branch = t () => (float[2] a) {{ a = Squeeze(x, last) }},
                else_branch = f () => (float[2, {extent}] b) {{ b = Identity(x) }}
            >
            two = Constant <value = int64[1] {{2}}> ()
            y = Reshape(v, two)
        }}"""
    )


def test_if_when_its_condition_is_a_shape_then_no_choice_is_left() -> None:
    module = read_onnx(squeezing("1"))
    assert "if" not in ops(module)


def test_if_when_only_one_branch_fits_then_the_dim_is_held_to_it() -> None:
    module = read_onnx(squeezing("N"))
    assert "if" not in ops(module)
    assert "N" not in module.dims  # it is 1 in the signature
    found = run(module, "main", {"x": np.ones((2, 1), np.float32)})
    np.testing.assert_array_equal(found["y"], np.ones(2))


def test_survey_when_an_import_decides_by_trying_then_finds_no_gap() -> None:
    found = survey_onnx(squeezing("N"))
    assert (found.problems, "N" in found.imported.module.dims) == ((), False)


def test_if_when_a_larger_expression_decides_then_a_guard_says_so() -> None:
    model = parsed(
        """g (float[1, 2, N] x) => (float[1, 2] y) {
            p = MaxPool <kernel_shape = [4], strides = [4]> (x)
            shape = Shape(p)
            last = Constant <value = int64[1] {2}> ()
            one = Constant <value = int64[1] {1}> ()
            extent = Gather(shape, last)
            single = Equal(extent, one)
            v = If (single) <
                then_branch = t () => (float[1, 2] a) { a = Squeeze(p, last) },
                else_branch = f () => (float[1, 2, M] b) { b = Identity(p) }
            >
            two = Constant <value = int64[2] {1, 2}> ()
            y = Reshape(v, two)
        }"""
    )
    module = read_onnx(model)
    (guard,) = [g for g in module.guards if g[1] == "=="]
    assert "decides an If" in guard[3]
    x = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    np.testing.assert_array_equal(run(module, "main", {"x": x})["y"], [[3, 8]])


def test_if_when_both_branches_fit_but_differ_then_is_refused_with_the_dims_that_decide() -> None:
    model = parsed(
        """g (float[2, N] x) => (float y) {
            shape = Shape(x)
            last = Constant <value = int64[1] {1}> ()
            one = Constant <value = int64[1] {1}> ()
            extent = Gather(shape, last)
            single = Equal(extent, one)
            v = If (single) <
                then_branch = t () => (float[2] a) { a = Squeeze(x, last) },
                else_branch = f () => (float[2, N] b) { b = Identity(x) }
            >
            y = ReduceSum <keepdims = 0> (v)
        }"""
    )
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "the condition N = 1" in caught.value.diagnostics()
    assert "if" not in ops(read_onnx(model, dims={"N": 5}))


def test_if_when_data_decide_between_ranks_then_is_refused() -> None:
    model = parsed(
        """g (float[2, 3] x, bool flag) => (float y) {
            v = If (flag) <
                then_branch = t () => (float[6] a) { m = Constant <value = int64[1] {-1}> () a = Reshape(x, m) },
                else_branch = f () => (float[1, 3] b) {
                    z = Constant <value = int64[1] {0}> ()
                    b = ReduceSum <keepdims = 1> (x, z)
                }
            >
            y = ReduceMax <keepdims = 0> (v)
        }"""
    )
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "different types" in caught.value.diagnostics()


@pytest.mark.numerics
def test_branch_when_it_demands_something_of_dims_then_only_runs_that_take_it_are_asked(tmp_path: Path) -> None:
    model = parsed(
        """g (float[N] x, float[M] z, bool flag) => (float[N] y) {
            y = If (flag) <
                then_branch = t () => (float[N] a) { n = Neg(x) a = Add(n, z) },
                else_branch = f () => (float[N] b) { b = Neg(x) }
            >
        }"""
    )
    bundle = tessera_build.build(model, ["native"], tmp_path / "m", verify=False, workers=1).path
    x, other = np.arange(4.0, dtype=np.float32), np.ones(3, np.float32)
    with tessera_runtime.load(bundle, threads=1) as loaded:
        np.testing.assert_array_equal(loaded.run(x=x, z=x + 1, flag=np.array(True))["y"], np.ones(4, np.float32))
        np.testing.assert_array_equal(loaded.run(x=x, z=other, flag=np.array(False))["y"], -x)
        with pytest.raises(tessera_runtime.RunError, match="operands do not broadcast at axis 0: N == M"):
            loaded.run(x=x, z=other, flag=np.array(True))


def test_demand_when_it_stands_between_nodes_then_those_behind_it_do_not_run_with_those_before() -> None:
    b = GraphBuilder(dims={"N": (1, None), "M": (1, None)})
    x = b.input("x", tensor(F32, symbol("N")))
    before = b.op("neg", x)
    left, right = (b.op("dimension", value=symbol(name), dtype=I64) for name in "NM")
    holds = b.op("cast", b.op("eq", left, right), dtype=I64)
    b.node("sizes", (b.op("reshape", holds, shape=(1,)),), {"names": ("holds",), "uppers": (1,)})
    b.guard(symbol("holds"), "==", 1, "the extents differ")
    b.output("y", b.op("mul", before, x))
    groups = [[node.op for node in group.nodes] for group in fuse(b.finish().entries["main"], {})]
    assert groups.index(["neg"]) < groups.index(["sizes"]) < groups.index(["mul"])


def test_loop_when_a_carried_value_grows_by_what_data_tell_then_is_refused() -> None:
    model = parsed(
        """g (float[1] x, int64[1] k) => (float[K] y) {
            n = Constant <value = int64 {3}> ()
            y = Loop (n, , x) <
                body = b (int64 i, bool c, float[K] h) => (bool again, float[K] h2) {
                    again = Identity(c)
                    more = Expand(x, k)
                    h2 = Concat <axis = 0> (h, more)
                }
            >
        }"""
    )
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "from one iteration to the next" in caught.value.diagnostics()


def test_loop_when_it_stacks_what_each_iteration_counts_then_is_refused() -> None:
    model = parsed(
        """g (float[3, 4] x) => (int64[3, 1, K] y) {
            n = Constant <value = int64 {3}> ()
            go = Constant <value = bool {1}> ()
            y = Loop (n, go) <
                body = b (int64 i, bool c) => (bool again, int64[1, K] found) {
                    again = Identity(c)
                    row = Gather <axis = 0> (x, i)
                    found = NonZero(row)
                }
            >
        }"""
    )
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert "in each iteration" in caught.value.diagnostics()


def test_loop_when_it_carries_counters_and_constants_then_only_the_rest_is_carried() -> None:
    module = run_passes(read_onnx(CASES["loop_carries_counters"].model()))
    (loop,) = (n for n in module.entries["main"].walk() if isinstance(n, GraphNode) and n.op == "loop")
    assert len(loop.inputs) == 1


def test_loop_when_it_has_the_number_of_the_iteration_then_that_is_arithmetic_over_its_index() -> None:
    module = run_passes(read_onnx(CASES["loop_over_captured_rows"].model()))
    (loop,) = (n for n in module.entries["main"].walk() if isinstance(n, GraphNode) and n.op == "loop")
    assert loop.attributes["trips"] == symbol("N")
    assert loop.attributes["conditional"] is False


@pytest.mark.errors
def test_if_when_nested_without_end_then_is_refused_soon() -> None:
    graph = helper.make_graph([helper.make_node("Not", ["c"], ["v"])], "g", [], [onnx.ValueInfoProto(name="v")])
    for level in range(11):
        node = helper.make_node("If", ["c"], [f"v{level}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [onnx.ValueInfoProto(name=f"v{level}")])
    graph.input.append(helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(UnsupportedError) as caught:
        read_onnx(model)
    assert any("8 deep" in problem.message for problem in caught.value.problems)
