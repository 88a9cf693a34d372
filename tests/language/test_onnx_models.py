"""ONNX files as modules: fine-tuned, frozen, saved and loaded; gradients against torch's and finite differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import tessera_build
import tessera_runtime
from tessera.errors import LanguageError
from tessera_build.frontends.python import read_python
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.reference import run
from tests.language.build import Floats, written
from tests.language.numeric import Doubles

DIGITS = Path("examples/digits/digits.onnx").resolve()
TEST_SET = Path("examples/digits/digits_test.npz").resolve()
TRAIN = f"""
net = graph.from_onnx({str(DIGITS)!r})


@graph.training_step(module="train")
def train(x: Tensor["B", 1, 8, 8, f32], label: Tensor["B", i64]):
    loss = -op.reduce_mean(op.log(op.take_along(net(x), label[:, None], 1)))
    return {{"loss": loss, "grads": graph.backward(loss, wrt=net.trainable())}}
"""


def _doubles(arrays: Mapping[str, Array]) -> dict[str, Doubles]:
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _weights() -> dict[str, Floats]:
    return {t.name: numpy_helper.to_array(t).astype(np.float32) for t in onnx.load(DIGITS).graph.initializer}


def _batch(count: int) -> tuple[Floats, NDArray[np.int64]]:
    data = np.load(TEST_SET)
    x, label = (data[name] for name in data.files[:2])
    return x[:count].reshape(-1, 1, 8, 8).astype(np.float32), label[:count].astype(np.int64)


def _torch_gradients(x: Floats, label: NDArray[np.int64]) -> dict[str, Floats]:
    torch = pytest.importorskip("torch")
    w = {n: torch.tensor(a, requires_grad="running" not in n) for n, a in _weights().items()}

    def layer(h: object, i: int) -> object:
        c = torch.nn.functional.conv2d(h, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding=1)
        measured = w[f"norm{i}.running_mean"], w[f"norm{i}.running_var"]
        return torch.nn.functional.batch_norm(c, *measured, w[f"norm{i}.weight"], w[f"norm{i}.bias"], eps=1e-5)

    h = torch.relu(layer(torch.relu(layer(torch.tensor(x), 1)), 2))
    h = torch.nn.functional.max_pool2d(h, 2)
    h = torch.nn.functional.max_pool2d(torch.relu(h + layer(h, 3)), 2).flatten(1)
    logits = h @ w["linear.weight"].T + w["linear.bias"]
    torch.nn.functional.cross_entropy(logits, torch.tensor(label)).backward()
    return {n: t.grad.numpy() for n, t in w.items() if t.grad is not None}


@pytest.mark.numerics
def test_classifier_when_fine_tuned_then_gradients_are_torchs_and_the_loss_falls(tmp_path: Path) -> None:
    model, bundle = written(tmp_path, TRAIN), tmp_path / "m.tessera"
    tessera_build.build(model, out=bundle, dims={"B": (1, 64)}, verify=False, workers=1)
    x, label = _batch(32)
    # Somewhat spoilt, so that there is something to learn.
    noise = np.random.default_rng(0)
    weights = {n: (a + 0.05 * noise.normal(size=a.shape)).astype(np.float32) for n, a in _weights().items()}
    with tessera_runtime.load(bundle, threads=1) as loaded:
        step = loaded.entries["train"]
        names = {spec.name for spec in step.inputs} - {"x", "label"}
        assert names == {n for n in weights if "running" not in n}
        first = _doubles(step.run({"x": x, "label": label, **{n: _weights()[n] for n in names}}))
        wanted = _torch_gradients(x, label)
        for name in names:
            scale = np.abs(wanted[name]).max()
            np.testing.assert_allclose(first[f"grad.{name}"], wanted[name], rtol=1e-3, atol=1e-4 * scale, err_msg=name)
        losses: list[float] = []
        for _ in range(8):
            found = _doubles(step.run({"x": x, "label": label, **{n: weights[n] for n in names}}))
            losses.append(float(found["loss"]))
            weights |= {n: (weights[n] - 0.001 * found[f"grad.{n}"]).astype(np.float32) for n in names}
        assert losses[-1] < 0.7 * losses[0]
        probabilities = _doubles(loaded.entries["net"].run({"image": x}))
    expected = _doubles(run(read_python(model, entries=["net"]).module, "net", {"image": x}))
    for name, array in expected.items():
        np.testing.assert_allclose(probabilities[name], array, atol=1e-5)


def _linear(folder: Path) -> Path:
    """y = (x w1 + b1) w2 + b2 with equal biases, and a scalar that is no weight."""
    rng = np.random.default_rng(5)
    arrays = {
        "w1": rng.normal(size=(3, 3)).astype(np.float32),
        "b1": np.zeros(3, np.float32),
        "w2": rng.normal(size=(3, 3)).astype(np.float32),
        "b2": np.zeros(3, np.float32),
        "half": np.float32(0.5),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["p1"]),
        helper.make_node("Add", ["p1", "b1"], ["s1"]),
        helper.make_node("Mul", ["s1", "half"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["p2"]),
        helper.make_node("Add", ["p2", "b2"], ["y"]),
    ]
    ports = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 3])] for n in ("x", "y")]
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    path = folder / "linear.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "linear", ports[0], ports[1], stored), ir_version=10), path)
    return path


@pytest.mark.numerics
def test_weights_when_they_are_equal_numbers_then_have_gradients_of_their_own(tmp_path: Path) -> None:
    _linear(tmp_path)
    body = """
    net = graph.from_onnx("linear.onnx")


    @graph.module("gradients")
    def gradients(x: Tensor["B", 3, f32]):
        return graph.backward(op.reduce_sum(op.tanh(net(x))), wrt=net.weights)
    """
    module = read_python(written(tmp_path, body), entries=["gradients"]).module
    x = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    found = _doubles(run(module, "gradients", {"x": x}))
    assert set(found) == {"grad.w1", "grad.b1", "grad.w2", "grad.b2"}
    given = {
        t.name: numpy_helper.to_array(t).astype(np.float64)
        for t in onnx.load(tmp_path / "linear.onnx").graph.initializer
    }

    def loss(w: dict[str, Doubles]) -> float:
        return float(np.tanh((x.astype(np.float64) @ w["w1"] + w["b1"]) * 0.5 @ w["w2"] + w["b2"]).sum())

    for name in ("w1", "b1", "w2", "b2"):
        wanted = np.zeros_like(given[name])
        for place in np.ndindex(*wanted.shape):
            moved = [dict(given), dict(given)]
            for side, sign in zip(moved, (1, -1), strict=True):
                side[name] = given[name].copy()
                side[name][place] += sign * 1e-6
            wanted[place] = (loss(moved[0]) - loss(moved[1])) / 2e-6
        np.testing.assert_allclose(found[f"grad.{name}"], wanted, rtol=1e-4, atol=1e-5)


def test_parameters_when_frozen_then_are_no_inputs_of_a_training_step(tmp_path: Path) -> None:
    body = TRAIN.replace("\n\n\n@graph", '\nnet.freeze("conv*", "norm*")\n\n\n@graph', 1)
    module = read_python(written(tmp_path, body), entries=["train"]).module
    assert module.input_names["train"] == ("x", "label", "linear.weight", "linear.bias")
    assert module.output_names["train"] == ("loss", "grad.linear.weight", "grad.linear.bias")


def _sums(folder: Path) -> None:
    """Running sums of rows by a Scan, and where they are not zero."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["total", "row"], ["next"]),
            helper.make_node("Identity", ["next"], ["slice"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in ("total", "row")],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in ("next", "slice")],
    )
    nodes = [
        helper.make_node("Scan", ["start", "x"], ["last", "sums"], body=body, num_scan_inputs=1),
        helper.make_node("ReduceSum", ["sums", "one"], ["flat"], keepdims=0),
        helper.make_node("NonZero", ["flat"], ["found"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])],
        [
            helper.make_tensor_value_info("sums", onnx.TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("found", onnx.TensorProto.INT64, [1, "K"]),
        ],
        [numpy_helper.from_array(np.zeros(2, np.float32), "start"), numpy_helper.from_array(np.asarray([1]), "one")],
    )
    onnx.save(helper.make_model(graph, ir_version=10), folder / "sums.onnx")


@pytest.mark.numerics
def test_model_when_called_twice_with_loops_and_sizes_then_each_call_is_its_own(tmp_path: Path) -> None:
    _sums(tmp_path)
    source = """
    net = graph.from_onnx("sums.onnx")


    @graph.module("both")
    def both(x: Tensor["B", 2, f32], y: Tensor[3, 2, f32]):
        first, second = net(x), net(y)
        return {"a": first["sums"], "i": first["found"], "b": second["sums"], "j": second["found"]}
    """
    module = read_python(written(tmp_path, source), entries=["both"]).module
    x = np.asarray([[1, -1], [0, 2], [1, 1], [0, -4]], np.float32)
    found = _doubles(run(module, "both", {"x": x, "y": x[:3]}))
    np.testing.assert_allclose(found["a"], np.cumsum(x, 0))
    np.testing.assert_allclose(found["b"], np.cumsum(x[:3], 0))
    np.testing.assert_array_equal(found["i"], [np.flatnonzero(np.cumsum(x, 0).sum(1))])
    np.testing.assert_array_equal(found["j"], [np.flatnonzero(np.cumsum(x[:3], 0).sum(1))])


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("net.freeze('conv9.*')", "PARAMETER_UNKNOWN", "no parameter fits 'conv9.*'"),
        ("graph.from_onnx('none.onnx')", "NO_MODEL", "cannot be read"),
        ("wrong = graph.module('wrong')(shaped)", "ARGUMENT_MISMATCH", "input image of digits has another type"),
        ("wrong = graph.module('wrong')(named)", "ARGUMENT_MISMATCH", "digits takes other inputs"),
    ],
)
def test_imported_model_when_misused_then_says_so_at_the_line(line: str, code: str, text: str, tmp_path: Path) -> None:
    body = f"""
net = graph.from_onnx({str(DIGITS)!r})


def shaped(x: Tensor["B", 1, 8, 9, f32]):
    return net(x)


def named(x: Tensor["B", 1, 8, 8, f32]):
    return net(picture=x)


{line}
"""
    entries = ["wrong"] if line.startswith("wrong") else []
    with pytest.raises(LanguageError) as refused:
        read_python(written(tmp_path, body), entries=entries)
    assert refused.value.code == code
    assert text in refused.value.diagnostics()
    assert "model.py" in str(refused.value.where)
