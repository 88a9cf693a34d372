"""Exports: every op has a form or a reason, and onnxruntime computes what the reference or the bundle does."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime
import pytest
from onnx.backend.test.case.test_case import TestCase

import tessera_build
import tessera_runtime
from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.frontends.onnx.export import export_onnx, exported, write_onnx
from tessera_build.frontends.onnx.export.site import Site, WriteNode
from tessera_build.frontends.onnx.export.table import WRITERS, WRITTEN_OUT
from tessera_build.frontends.onnx.export.writer import Operand
from tessera_build.frontends.python import read_python
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Span
from tessera_build.ir.core.types import BOOL, F32, I64, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.reference import run
from tessera_build.verify.compare import error_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import choose_sizes, make_inputs
from tests.frontends_onnx.backend_suite import collect, judge
from tests.frontends_onnx.exported import round_trip, run_exported, session_of

DIGITS = Path("examples/digits/digits.onnx")
CASES = os.environ.get("TESSERA_CASES", "")
PUBLIC = sorted(Path(CASES).glob("*.onnx")) if CASES else []
# onnxruntime 1.31 has no code for these elements, nor for RoiAlign since opset 22.
NO_KERNEL = ("FLOAT4E2M1", "float4e2m1", "FLOAT8E8M0", "test_roialign")
_GUARD = "indices element out of data bounds, idx=1"
# One case or more of each family of operators; all of them are run with -m slow.
SAMPLE = [
    "test_add_bcast",
    "test_affine_grid_2d",
    "test_argmax_default_axis_example",
    "test_averagepool_2d_pads_count_include_pad",
    "test_basic_conv_with_padding",
    "test_batchnorm_example",
    "test_bitshift_left_uint16",
    "test_bitwise_and_i16_3d",
    "test_cast_FLOAT_to_BFLOAT16",
    "test_clip_default_int8_max",
    "test_compress_0",
    "test_constantofshape_int_shape_zero",
    "test_convinteger_with_padding",
    "test_convtranspose",
    "test_cumprod_1d_reverse",
    "test_cumsum_2d_axis_0",
    "test_dequantizelinear_e4m3fn",
    "test_depthtospace_crd_mode_example",
    "test_det_nd",
    "test_dft_inverse",
    "test_einsum_batch_matmul",
    "test_gather_elements_negative_indices",
    "test_gathernd_example_int32",
    "test_gemm_all_attributes",
    "test_gru_with_initial_bias",
    "test_hardmax_axis_1",
    "test_if",
    "test_layer_normalization_4d_axis1",
    "test_logsoftmax_axis_0",
    "test_loop11",
    "test_lstm_with_peepholes",
    "test_matmulinteger",
    "test_maxpool_2d_dilations",
    "test_mish_expanded",
    "test_mod_mixed_sign_float32",
    "test_nonmaxsuppression_two_batches",
    "test_nonzero_example",
    "test_onehot_with_axis",
    "test_reflect_pad",
    "test_qlinearconv",
    "test_qlinearmatmul_3D_uint8_float32",
    "test_range_int32_type_negative_delta_expanded",
    "test_reduce_log_sum_exp_keepdims_random",
    "test_reduce_max_bool_inputs",
    "test_resize_downsample_scales_cubic",
    "test_rotary_embedding",
    "test_scan9_sum",
    "test_scatter_elements_with_duplicate_indices",
    "test_scatternd_add",
    "test_shape_end_negative_1",
    "test_slice_neg_steps",
    "test_split_equal_parts_1d_opset18",
    "test_tensorscatter_circular",
    "test_tfidfvectorizer_tf_uniandbigrams_skip5",
    "test_tile",
    "test_top_k_uint64",
    "test_tril",
    "test_unique_sorted_with_axis_3d",
    "test_where_long_example",
    "test_xor4d",
]


@pytest.fixture(scope="module", name="cases")
def _cases() -> Mapping[str, TestCase]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx makes its cases with overflows
        return collect()


def test_table_when_walked_then_every_op_has_a_form_or_is_written_out_before() -> None:
    assert set(WRITERS) | set(WRITTEN_OUT) | {"constant"} == set(OPS)
    assert not set(WRITERS) & set(WRITTEN_OUT)


@pytest.mark.numerics
@pytest.mark.parametrize("name", SAMPLE)
def test_node_case_when_imported_and_exported_then_onnxruntime_gives_its_outputs(
    name: str, cases: Mapping[str, TestCase]
) -> None:
    verdict = judge(cases[name], execute=round_trip)
    assert verdict.outcome == "right", verdict.reason


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize("dynamic", [False, True])
def test_all_node_cases_when_imported_and_exported_then_onnxruntime_gives_their_outputs(
    dynamic: bool, cases: Mapping[str, TestCase]
) -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for name, case in cases.items():
        if any(word in name for word in NO_KERNEL) or (dynamic and "optional" in name):
            counts["no kernel"] += 1
            continue
        try:
            verdict = judge(case, dynamic=dynamic, execute=round_trip)
        except Exception as error:  # onnxruntime's errors are of many types
            if dynamic and _GUARD in str(error):
                counts["refused"] += (
                    1  # dims that the import takes to be equal: the file ends the run, as a bundle does
                )
                continue
            wrong.append(f"{name}: {error}")
            continue
        counts[verdict.outcome] += 1
        wrong += [f"{name}: {verdict.reason}"] if verdict.outcome == "wrong" else []
    # Inputs of these are shapes, whose own extents the suite makes dynamic.
    wrong = [text for text in wrong if not (dynamic and text.startswith("test_affine_grid_3d"))]
    assert not wrong
    assert counts["right"] >= (1680 if dynamic else 1775), counts


def _first(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(session.run(None, dict(inputs))[0])


def _compare(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], limit: float) -> None:
    assert found.keys() == wanted.keys()
    for name, reference in wanted.items():
        assert found[name].dtype == reference.dtype
        assert error_of(found[name], reference) <= limit, name


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("model", "entry"),
    [
        ("examples/digits/digits.onnx", "main"),
        ("examples/mlp/model.py", "classify"),
        ("examples/opt_layer/model.py", "opt_layer"),
        ("examples/pinn/model.py", "solution"),
        pytest.param("examples/pinn/model.py", "residual", marks=pytest.mark.slow),
        pytest.param("examples/transformer/model.py", "predict", marks=pytest.mark.slow),
        pytest.param("examples/transformer/model.py", "step", marks=pytest.mark.slow),
        pytest.param("examples/mlp/model.py", "train", marks=pytest.mark.slow),
    ],
)
def test_example_when_exported_then_onnxruntime_and_the_bundle_agree(model: str, entry: str, tmp_path: Path) -> None:
    entries = (entry,) if model.endswith(".py") else ()
    module = read_python(model, entries=entries).module if entries else read_onnx(model)
    bundle = tmp_path / "m.tessera"
    tessera_build.build(model, out=bundle, entries=entries, verify=False, workers=1)
    function, names = module.entries[entry], module.input_names[entry]
    kept = {names[function.args.index(pair.incoming)] for pair in module.states.get(entry, ())}
    for sizes in choose_sizes(module):
        inputs = make_inputs(module, entry, sizes, 7)
        inputs |= {name: np.zeros_like(inputs[name]) for name in kept}  # as a new state is
        given = {name: array for name, array in inputs.items() if name not in kept}
        with tessera_runtime.load(bundle, threads=1) as loaded:
            point = loaded.entries[entry]
            state = point.new_state({name: inputs[name] for name in kept}) if kept else None
            built = {name: np.array(array) for name, array in point.run(given, state=state).items()}
        found = run_exported(module, entry, inputs)
        _compare({name: found[name] for name in built}, built, 1e-4)


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.skipif(not PUBLIC, reason="TESSERA_CASES names no folder with models")
@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.stem)
def test_public_model_when_imported_and_exported_then_answers_as_before(path: Path) -> None:
    module = read_onnx(path)
    for case in sorted(path.parent.glob(f"{path.stem}.case*.in.npz")):
        taken, given = np.load(case), np.load(str(case).replace(".in.npz", ".ort.npz"))
        inputs = {str(name): taken[f"i{i:02d}"] for i, name in enumerate(taken["names"])}
        wanted = {str(name): given[f"o{i:02d}"] for i, name in enumerate(given["names"])}
        _compare(run_exported(module, "main", inputs), wanted, 1e-4)


def test_export_when_made_in_two_processes_then_has_the_same_bytes(tmp_path: Path) -> None:
    found: list[bytes] = []
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.onnx"
        code = f"import tessera_build; tessera_build.export({str(DIGITS)!r}, {str(out)!r}, verify=False)"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        found.append(out.read_bytes())
    assert found[0] == found[1]


def test_model_when_too_large_for_one_file_then_has_its_weights_beside_it(tmp_path: Path) -> None:
    made, path = exported(read_onnx(DIGITS), "main"), tmp_path / "digits.onnx"
    write_onnx(made, path, largest=1000)
    assert (tmp_path / "digits.onnx.data").stat().st_size > 10_000 > path.stat().st_size
    x = np.random.default_rng(1).normal(size=(3, 1, 8, 8)).astype(np.float32)
    outside = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inside = session_of(made.whole())
    name = inside.get_inputs()[0].name
    assert np.array_equal(_first(outside, {name: x}), _first(inside, {name: x}))
    assert np.array_equal(
        next(iter(run_exported(read_onnx(path), "main", {name: x}).values())), _first(inside, {name: x})
    )


def test_model_when_exported_onto_the_file_that_its_weights_are_read_from_then_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    write_onnx(exported(read_onnx(DIGITS), "main"), path, largest=1000)
    x = np.random.default_rng(1).normal(size=(3, 1, 8, 8)).astype(np.float32)
    answers: list[object] = []
    for _ in range(2):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        answers.append(_first(session, {session.get_inputs()[0].name: x}))
        write_onnx(exported(read_onnx(path), "main"), path, largest=1000)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digits.onnx", "digits.onnx.data"]


def test_dims_when_exported_then_keep_their_names() -> None:
    builder = GraphBuilder(dims={"S": (1, 64)})
    x = builder.input("x", tensor(F32, symbol("S"), symbol("S") * 2 + 1))
    builder.output("y", builder.op("reshape", x, shape=(symbol("S") * (symbol("S") * 2 + 1),)))
    model = export_onnx(builder.finish(), "main")
    assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim] == ["S", "2*S+1"]
    assert [d.dim_param for d in model.graph.output[0].type.tensor_type.shape.dim] == ["S+2*S*S"]
    assert {p.key: p.value for p in model.metadata_props} == {"tessera.dim.S": "1..64"}


def test_ops_without_form_when_exported_then_all_are_named_with_their_lines() -> None:
    builder = GraphBuilder()
    r = builder.input("r", tensor(F32, 2, 3, 3))
    with builder.at(Span("model.py", 4, 9)):
        first = builder.node("solve", (r, r), {})[0]
    with builder.at(Span("model.py", 7, 5)):
        second = builder.node("solve", (builder.op("mul", r, r), r), {})[0]
    builder.output("p", builder.op("add", first, second))
    with pytest.raises(UnsupportedError) as refused:
        export_onnx(builder.finish(), "main")
    assert [(p.code, p.where) for p in refused.value.problems] == [
        ("UNSUPPORTED", "model.py:4:9"),
        ("UNSUPPORTED", "model.py:7:5"),
    ]
    assert "the rows that an elimination leaves have no form in ONNX" in refused.value.diagnostics()


def _images(builder: GraphBuilder, regions: int) -> tuple[int, int]:
    return builder.input("x", tensor(F32, 2, 9, 7, 3)), builder.input("images", tensor(I64, regions))


@pytest.mark.numerics
def test_regions_when_exported_then_onnxruntime_agrees() -> None:
    builder, rng = GraphBuilder(), np.random.default_rng(2)
    x, images = _images(builder, 3)
    places = [builder.input(name, tensor(F32, 3, 2)) for name in ("starts", "sizes")]
    counts = builder.input("counts", tensor(I64, 3, 2))
    rows, columns = (builder.input(name, tensor(I64, 3, 2, 2)) for name in ("rows", "columns"))
    for kind in ("avg", "max"):
        builder.output(kind, builder.op("sample_regions", x, images, *places, counts, kind=kind, bins=(2, 3)))
    builder.output("largest", builder.op("max_regions", x, images, rows, columns))
    module = builder.finish()
    inputs = {
        "x": rng.normal(size=(2, 9, 7, 3)).astype(np.float32),
        "images": np.array([1, 0, 1]),
        "starts": rng.uniform(-2, 4, (3, 2)).astype(np.float32),
        "sizes": rng.uniform(0.3, 2, (3, 2)).astype(np.float32),
        "counts": np.array([[2, 1], [1, 3], [0, 2]]),
        "rows": np.sort(rng.integers(0, 10, (3, 2, 2)), -1),
        "columns": np.sort(rng.integers(0, 8, (3, 2, 2)), -1),
    }
    _compare(run_exported(module, "main", inputs), run(module, "main", inputs), 1e-5)


@pytest.mark.numerics
def test_probabilities_of_pairs_when_exported_then_onnxruntime_agrees() -> None:
    builder = GraphBuilder()
    builder.output("p", builder.op("coupled", builder.input("r", tensor(F32, symbol("N"), 4, 4))))
    module = builder.finish()
    upper = np.triu(np.random.default_rng(5).uniform(0.05, 0.95, (6, 4, 4)), 1)
    inputs = {"r": (upper + np.tril(1 - upper.transpose(0, 2, 1), -1)).astype(np.float32)}
    _compare(run_exported(module, "main", inputs), run(module, "main", inputs), 1e-5)


LANGUAGE = """
from tessera import Tensor, f32, graph, i64, op


@graph.module("branches")
def branches(x: Tensor["B", 4, f32]):
    return op.cond(op.reduce_sum(x) > 0, lambda: op.exp(x), lambda: x * 2.0)


@graph.module("repeats")
def repeats(x: Tensor["B", 4, f32]):
    return op.while_(lambda v: op.reduce_sum(v) < 1000.0, lambda v: v * 1.5 + 1.0, x, max_iter=50)


@graph.module("scanned")
def scanned(x: Tensor[6, "B", f32]):
    total, parts = op.scan(lambda carry, row: (carry * 0.5 + row, op.tanh(carry)), x[0], x)
    return {"total": total, "parts": parts, "grad": graph.backward(op.reduce_sum(op.tanh(total)), wrt=[x])}


@graph.module("drawn")
def drawn(x: Tensor["B", 4, f32]):
    first, second = op.random.split(op.random.key(7))
    return {"uniform": x * 0.0 + op.random.uniform(first, x.shape), "normal": op.random.normal(second, x.shape)}
"""


@pytest.mark.numerics
@pytest.mark.parametrize("entry", ["branches", "repeats", "scanned", "drawn"])
def test_control_flow_and_draws_when_exported_then_onnxruntime_agrees(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(LANGUAGE)
    module = read_python(file, entries=(entry,)).module
    for seed in (1, 2):
        inputs = {
            name: np.random.default_rng(seed).normal(size=[int(e) if isinstance(e, int) else 3 for e in type_.shape])
            for name, type_ in zip(
                module.input_names[entry],
                [module.entries[entry].types[a] for a in module.entries[entry].args],
                strict=True,
            )
        }
        single = {name: array.astype(np.float32) for name, array in inputs.items()}
        found, wanted = run_exported(module, entry, single), run(module, entry, single)
        _compare(found, wanted, 1e-6)
        if entry == "drawn":
            assert np.array_equal(found["uniform"], wanted["uniform"])


def test_export_when_onnxruntime_gives_something_else_then_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(site: Site) -> Operand:
        return site.writer.run("Sin", *site.inputs)

    monkeypatch.setitem(cast("dict[str, WriteNode]", WRITERS), "tanh", wrong)
    (tmp_path / "m.onnx").write_bytes(b"of an earlier export")
    (tmp_path / "m.onnx.data").write_bytes(b"its weights")
    for name in ("m.onnx", "new.onnx"):
        with pytest.raises(VerificationError, match="OUTPUT_WRONG"):
            tessera_build.export("examples/pinn/model.py", tmp_path / name, entry="solution")
    found = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert found == {"m.onnx": b"of an earlier export", "m.onnx.data": b"its weights"}


def test_condition_of_a_run_when_it_does_not_hold_then_onnxruntime_ends_the_run() -> None:
    builder = GraphBuilder()
    x, holds = builder.input("x", tensor(F32, 3)), builder.input("holds", tensor(BOOL))
    builder.output("y", builder.op("checked", x, holds, message="no"))
    session = session_of(export_onnx(builder.finish(), "main"))
    numbers = np.ones(3, np.float32)
    assert np.array_equal(_first(session, {"x": numbers, "holds": np.asarray(True)}), numbers)
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"x": numbers, "holds": np.asarray(False)})
