"""onnxruntime's interface on a bundle: one script against both modules, and what only ours must refuse."""

import json
import logging
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import tessera_build
import tessera_runtime.compat as ort
from tessera_runtime import RunError
from tessera_runtime.compat.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidProtobuf,
    NoModel,
    NoSuchFile,
)
from tests.models.bundles import DIGITS

ROOT = Path(__file__).parents[2]
X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)

# A server's habits, written for onnxruntime. The first argument is the module, the second the model's path.
SCRIPT = """
import importlib, json, sys, threading
import numpy as np
ort = importlib.import_module(sys.argv[1])
state = importlib.import_module(sys.argv[1] + ".capi.onnxruntime_pybind11_state")
found = {}

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(sys.argv[2], sess_options=options, providers=["CPUExecutionProvider"])
found["inputs"] = [[i.name, i.type, i.shape] for i in session.get_inputs()]
found["outputs"] = [[o.name, o.type, o.shape] for o in session.get_outputs()]
found["providers"] = session.get_providers()
found["device"] = ort.get_device()
found["has cpu"] = "CPUExecutionProvider" in ort.get_available_providers()
found["options"] = session.get_session_options().intra_op_num_threads
found["metadata"] = [type(session.get_modelmeta().custom_metadata_map).__name__]

images = np.load(sys.argv[3])
name = session.get_inputs()[0].name
label = session.get_outputs()[0].name
(answer,) = session.run(None, {name: images})
found["answer"] = answer.tolist()
found["kind"] = [type(answer).__name__, str(answer.dtype), list(answer.shape)]
found["named"] = [a.tolist() == answer.tolist() for a in session.run([label, label], {name: images})]
found["list"] = session.run([label], {name: images[:2].tolist()})[0].shape
found["strided"] = session.run([], {name: images[::2]})[0].shape

def error(call):
    try:
        call()
    except Exception as caught:
        return [kind.__name__ for kind in (state.InvalidArgument, state.NoSuchFile, state.Fail, ValueError)
                if isinstance(caught, kind)][-1:], bool(str(caught))
    return "no error"

found["errors"] = [
    error(lambda: session.run(None, {})),
    error(lambda: session.run(None, {name: images, "other": images})),
    error(lambda: session.run(["other"], {name: images})),
    error(lambda: session.run(None, {name: images.astype(np.float64)})),
    error(lambda: session.run(None, {name: images[0]})),
    error(lambda: session.run(None, {name: images[:, :, :4]})),
    error(lambda: ort.InferenceSession("/nowhere/model.onnx")),
]

run_options = ort.RunOptions()
run_options.terminate = True
found["terminated"] = error(lambda: session.run(None, {name: images}, run_options))
run_options.terminate = False
found["again"] = session.run(None, {name: images}, run_options)[0].shape

binding = session.io_binding()
binding.bind_cpu_input(name, images)
binding.bind_output(label)
session.run_with_iobinding(binding)
found["bound"] = [a.tolist() == answer.tolist() for a in binding.copy_outputs_to_cpu()]
box = ort.OrtValue.ortvalue_from_numpy(images)
found["box"] = [box.shape(), box.data_type(), box.device_name(), box.is_tensor(), box.element_type()]
target = np.zeros_like(answer)
binding = session.io_binding()
binding.bind_ortvalue_input(name, box)
binding.bind_output(label, "cpu", 0, np.float32, list(target.shape), target.__array_interface__["data"][0])
session.run_with_iobinding(binding, run_options)
found["in place"] = target.tolist() == answer.tolist()
found["boxes"] = [v.numpy().tolist() == answer.tolist() for v in session.run_with_ort_values([label], {name: box})]

same = []
def serve():
    same.append(session.run(None, {name: images})[0].tolist() == answer.tolist())
threads = [threading.Thread(target=serve) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
found["threads"] = same
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network as an ONNX file with its bundle beside it."""
    folder = tmp_path_factory.mktemp("compat")
    (folder / "digits.onnx").write_bytes((DIGITS / "digits.onnx").read_bytes())
    out = folder / "digits.tessera"
    tessera_build.build(folder / "digits.onnx", ["native"], out, verify=False, workers=1)
    return folder / "digits.onnx"


def run_script(module: str, model: Path, images: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, module, str(model), str(images)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.numerics
def test_script_when_only_its_import_is_changed_then_finds_the_same(digits: Path, tmp_path: Path) -> None:
    with np.load(DIGITS / "digits_test.npz") as held_out:
        np.save(tmp_path / "images.npy", held_out["image"][:6])
    theirs = run_script("onnxruntime", digits, tmp_path / "images.npy")
    # The same path: the bundle beside the ONNX file is taken, because it was built from exactly that file.
    ours = run_script("tessera_runtime.compat", digits, tmp_path / "images.npy")
    expected, answer = np.array(theirs.pop("answer")), np.array(ours.pop("answer"))
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
    assert ours == theirs
    bundle = run_script("tessera_runtime.compat", digits.with_suffix(".tessera"), tmp_path / "images.npy")
    assert bundle.pop("answer") == answer.tolist()
    assert bundle == theirs


@pytest.mark.unit
def test_session_when_made_then_shows_the_signature_as_onnxruntime_does(bundle: Path) -> None:
    session = ort.InferenceSession(bundle)
    assert [tuple(value) for value in session.get_inputs()] == [("x", "tensor(float)", ["N", 3])]
    assert [tuple(value) for value in session.get_outputs()] == [
        ("y", "tensor(float)", ["N", 3]),
        ("last", "tensor(int64)", [1]),
    ]
    metadata = session.get_modelmeta()
    assert metadata.producer_name == "tessera"
    assert metadata.custom_metadata_map["tessera.variant"] == "plain"
    last, y = session.run(["last", "y"], {"x": X})
    assert last is not None
    assert y is not None
    assert (last.tolist(), y.shape) == ([4], (4, 3))


@pytest.mark.errors
def test_errors_when_caught_then_carry_our_facts_and_are_of_both_families(bundle: Path) -> None:
    session = ort.InferenceSession(bundle)
    with pytest.raises(InvalidArgument) as caught:
        session.run(None, {"x": X[:, :2]})
    error = caught.value
    assert isinstance(error, RunError)
    assert (error.code, error.where, error.expected, error.found) == ("INPUT_SHAPE", "x", "[N, 3]", "[4, 2]")
    with pytest.raises(InvalidArgument, match="gather_rows"):
        session.run(None, {"x": -np.ones((1, 3), np.float32)})
    with pytest.raises(InvalidArgument, match="cannot hold"):
        session.run(None, {"x": [["a", "b", "c"]]})
    with pytest.raises(InvalidArgument):
        session.run(None, {"x": [[1.0, 2.0], [1.0]]})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("code", "held", "refused"),
    [
        (TensorProto.INT8, [-128, 127], [[300], [-129], [1.5]]),
        (TensorProto.INT32, [-(2**31), 7], [[2**40]]),
        (TensorProto.UINT8, [0, 255], [[-1], [256]]),
        (TensorProto.UINT64, [2**64 - 1], [[-1]]),
        (TensorProto.FLOAT, [3, 2**30], []),
    ],
)
def test_list_when_the_input_cannot_hold_its_numbers_then_is_refused_and_never_wrapped(
    tmp_path: Path, code: int, held: list[int], refused: list[list[int]]
) -> None:
    infos = [helper.make_tensor_value_info(name, code, ["N"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    tessera_build.build(model, ["native"], tmp_path / "m.tessera", verify=False, workers=1)
    session = ort.InferenceSession(tmp_path / "m.tessera")
    (found,) = session.run(None, {"x": held})
    assert isinstance(found, np.ndarray)
    assert found.tolist() == held
    for values in refused:
        with pytest.raises(InvalidArgument, match="cannot hold"):
            session.run(None, {"x": values})


@pytest.mark.unit
def test_box_when_it_holds_bfloat16_then_has_the_element_type_of_onnx() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name, code in (("bfloat16", TensorProto.BFLOAT16), ("float8_e5m2", TensorProto.FLOAT8E5M2), ("int4", 22)):
        value = ort.OrtValue.ortvalue_from_numpy(np.zeros(2, getattr(ml_dtypes, name)))
        assert value.element_type() == code


@pytest.mark.errors
def test_session_when_there_is_no_bundle_then_says_what_to_do(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile):
        ort.InferenceSession(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"some model")
    with pytest.raises(NoModel, match="tessera build"):
        ort.InferenceSession(tmp_path / "m.onnx")
    (tmp_path / "m.tessera").write_bytes(digits.with_suffix(".tessera").read_bytes())
    with pytest.raises(NoModel, match="built from another"):
        ort.InferenceSession(tmp_path / "m.onnx")
    (tmp_path / "m.tessera").write_bytes(b"not a bundle")
    with pytest.raises(InvalidProtobuf):
        ort.InferenceSession(tmp_path / "m.tessera")
    with pytest.raises(NoModel):
        ort.InferenceSession(b"bytes")  # type: ignore[arg-type]


@pytest.mark.errors
def test_options_when_they_could_change_an_answer_then_are_refused(bundle: Path) -> None:
    options = ort.SessionOptions()
    for refused in (
        lambda: setattr(options, "enable_profiling", True),
        lambda: setattr(options, "optimized_model_filepath", "x.onnx"),
        lambda: options.add_free_dimension_override_by_name("N", 4),
        lambda: options.add_initializer("w", None),
        lambda: options.register_custom_ops_library("x.so"),
    ):
        with pytest.raises(RunError, match="OPTION_UNSUPPORTED"):
            refused()
    with pytest.raises(InvalidArgument):
        ort.InferenceSession(bundle, nonsense=1)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = ort.InferenceSession(bundle, providers=[("CUDAExecutionProvider", {"device_id": 0})])
    assert session.get_providers() == ["CPUExecutionProvider"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ort.InferenceSession(bundle, options, ["CPUExecutionProvider"], [{}])


@pytest.mark.unit
def test_terminate_when_set_by_another_thread_then_the_run_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, options, ended = ort.InferenceSession(bundle), ort.RunOptions(), list[str]()
    waiting = session._model.entries["wait"]
    monkeypatch.setattr(
        type(session._model), "run", lambda _, feeds, **limits: waiting.run(feeds, cancel=limits["cancel"])
    )

    def run() -> None:
        try:
            session.run(None, {"x": X[0, :1]}, options)
        except Fail as error:
            ended.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.05)
    assert not ended
    options.terminate = True
    thread.join(10)
    assert ended == ["CANCELLED"]


@pytest.mark.unit
def test_log_severity_when_set_then_runs_are_logged(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ort.SessionOptions()
    options.log_severity_level, options.logid = 0, "mine"
    session = ort.InferenceSession(bundle, options)
    with caplog.at_level(logging.DEBUG, "tessera_runtime.mine"):
        session.run(None, {"x": X})
    assert [record.message for record in caplog.records if record.name == "tessera_runtime.mine"][-1] == "ran main: OK"


@pytest.mark.errors
def test_binding_when_misused_then_is_refused(bundle: Path) -> None:
    session = ort.InferenceSession(bundle)
    binding = session.io_binding()
    with pytest.raises(InvalidArgument):
        binding.bind_cpu_input("z", X)
    with pytest.raises(RunError, match="DEVICE"):
        binding.bind_output("y", "cuda")
    binding.bind_cpu_input("x", X)
    with pytest.raises(InvalidArgument, match="no output is bound"):
        session.run_with_iobinding(binding)
    small = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], np.float32)
    binding.bind_ortvalue_output("y", small)
    with pytest.raises(InvalidArgument, match="does not fit"):
        session.run_with_iobinding(binding)
    with pytest.raises(InvalidArgument):
        small.update_inplace(X)
    small.update_inplace(X[:2])
    np.testing.assert_array_equal(small.numpy(), X[:2])
