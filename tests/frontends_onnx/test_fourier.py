"""DFT and STFT agree with onnxruntime, or with numpy where it has no such transform."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from bundle_format.errors import TesseraError
from tessera_build.frontends.onnx import UnsupportedError, read_onnx
from tessera_build.ir.graph.nodes import Array
from tests.frontends_onnx.built import assert_built_agrees, run_built
from tests.frontends_onnx.oracle import assert_agrees, floats, make_model, one_node

pytestmark = pytest.mark.numerics


def drawn_dft(seed: int) -> tuple[onnx.ModelProto, Array]:
    """A DFT of opset 17 along one of the inner axes, cut or filled to a stated length half of the time."""
    draw = random.Random(seed)
    half = draw.choice([0, 1])
    shape = [draw.randint(1, 3), draw.randint(2, 9), draw.randint(2, 12), 1 if half else draw.choice([1, 2])]
    names, weights = ["x"], dict[str, Array]()
    if draw.random() < 0.5:
        names.append("length")
        weights["length"] = np.asarray(draw.randint(2, 12), np.int64)
    inverse = 0 if half else draw.choice([0, 1])
    node = helper.make_node("DFT", names, ["y"], axis=draw.choice([1, 2]), onesided=half, inverse=inverse)
    return make_model([node], {"x": (np.float32, shape)}, ["y"], weights, 17), floats(*shape)


@pytest.mark.parametrize("seed", range(24))
def test_dft_when_redrawn_then_agrees(seed: int) -> None:
    model, x = drawn_dft(seed)
    assert_agrees(model, {"x": x}, tolerance=2e-5)


@pytest.mark.parametrize("stated", ["", "length"])
@pytest.mark.parametrize(("parts", "half", "inverse"), [(1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 0, 1), (1, 0, 1)])
def test_dft_when_its_length_is_known_in_a_run_only_then_agrees(
    stated: str, parts: int, half: int, inverse: int
) -> None:
    node = helper.make_node("DFT", ["x", stated], ["y"], axis=1, onesided=half, inverse=inverse)
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {"x": (np.float32, ["B", "L", parts])}
    feeds: list[dict[str, Array]] = [{"x": floats(2, length, parts)} for length in (1, 2, 12, 45)]
    if stated:
        inputs["length"] = (np.int64, [])
        for case, length in zip(feeds, (3, 2, 7, 64), strict=True):
            case["length"] = np.asarray(length, np.int64)
    assert_built_agrees(make_model([node], inputs, ["y"], None, 17), *feeds, tolerance=2e-5)


def test_dft_when_its_length_turns_out_too_large_then_the_run_says_so() -> None:
    node = helper.make_node("DFT", ["x"], ["y"], axis=1)
    model = make_model([node], {"x": (np.float32, [1, "L", 1])}, ["y"], None, 17)
    with pytest.raises(TesseraError, match="longer than Tessera builds"):
        run_built(model, [{"x": np.zeros((1, 5000, 1), np.float32)}])


@pytest.mark.parametrize("length", [8, 9])
def test_dft_when_half_a_spectrum_is_inverted_then_gives_the_signal(length: int) -> None:
    signal = floats(2, length)
    spectrum = np.fft.rfft(signal.astype(np.float64))
    x = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
    node = helper.make_node("DFT", ["x", "length", "axis"], ["y"], onesided=1, inverse=1)
    weights = {"length": np.asarray(length, np.int64), "axis": np.asarray(1, np.int64)}
    model = make_model([node], {"x": (np.float32, x.shape)}, ["y"], weights, 20)
    (found,) = run_built(model, [{"x": x}])[0]
    np.testing.assert_allclose(np.asarray(found[..., 0], np.float64), signal, rtol=0, atol=1e-5)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("windowed", [False, True])
def test_stft_when_signal_is_dynamic_then_agrees(half: int, windowed: bool) -> None:
    names = ["x", "step", "window", "length"] if windowed else ["x", "step", "", "length"]
    weights: dict[str, Array] = {"step": np.asarray(3, np.int64), "length": np.asarray(8, np.int64)}
    if windowed:
        weights["window"] = np.hanning(8).astype(np.float32)
    node = helper.make_node("STFT", names, ["y"], onesided=half)
    model = make_model([node], {"x": (np.float32, ("N", "L", 1))}, ["y"], weights, 17)
    assert_built_agrees(model, {"x": floats(2, 40, 1)}, {"x": floats(1, 9, 1)}, tolerance=2e-5)


@pytest.mark.parametrize("length", [1, 97, 128, 257, 400, 1018])
@pytest.mark.parametrize(("parts", "half", "inverse"), [(1, 0, 0), (2, 0, 1), (1, 1, 0), (2, 1, 1)])
def test_dft_when_long_then_is_as_exact_as_numpys(length: int, parts: int, half: int, inverse: int) -> None:
    """Onnxruntime's own is off by 1e-3 where the length is no power of two."""
    whole = inverse and half
    x: NDArray[np.float64] = floats(3, length // 2 + 1 if whole else length, parts).astype(np.float64)
    node = helper.make_node("DFT", ["x", "length", "axis"], ["y"], onesided=half, inverse=inverse)
    weights = {"length": np.asarray(length, np.int64), "axis": np.asarray(1, np.int64)}
    values = np.asarray(x @ np.asarray([1, 1j][:parts]))
    if whole:
        wanted = np.fft.irfft(values, length)
    else:
        wanted = np.fft.ifft(values) if inverse else np.fft.fft(values)[:, : length // 2 + 1 if half else length]
    pair = np.stack([wanted.real] if whole else [wanted.real, wanted.imag], axis=-1)
    for dtype, bound in ((np.float32, 2e-6), (np.float64, 1e-13)):
        model = make_model([node], {"x": (dtype, ("B", *x.shape[1:]))}, ["y"], weights, 20)
        ((found,),) = run_built(model, [{"x": x.astype(dtype)}])
        assert found.shape == pair.shape
        error = np.max(np.abs(found.astype(np.float64) - pair)) / np.max(np.abs(pair))
        assert error < bound


def test_dft_when_longer_than_a_table_may_be_then_is_built() -> None:
    model = one_node("DFT", {"x": (1, 20000, 1)}, None, 17, axis=1)
    x = floats(1, 20000, 1)
    ((found,),) = run_built(model, [{"x": x}])
    wanted = np.fft.fft(x[..., 0].astype(np.float64))
    error = np.abs(found.astype(np.float64) @ np.asarray([1, 1j]) - wanted)
    assert np.max(error) < 2e-6 * np.max(np.abs(wanted))


def test_dft_when_beyond_all_reason_then_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="DFT of 8388608 elements"):
        read_onnx(one_node("DFT", {"x": (1, 2**23, 1)}, None, 17, axis=1))


@pytest.mark.parametrize("stated", [False, True])
def test_dft_when_half_a_spectrum_of_unknown_length_is_inverted_then_gives_the_signal(stated: bool) -> None:
    names = ["x", "length" if stated else "", "axis"]
    node = helper.make_node("DFT", names, ["y"], onesided=1, inverse=1)
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {"x": (np.float32, ["B", "L", 2])}
    inputs |= {"length": (np.int64, [])} if stated else {}
    model = make_model([node], inputs, ["y"], {"axis": np.asarray(1, np.int64)}, 20)
    for length in (2, 8, 9, 30):
        if length % 2 and not stated:
            continue
        signal = floats(2, length)
        spectrum = np.fft.rfft(signal.astype(np.float64))
        feeds: dict[str, Array] = {"x": np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)}
        feeds |= {"length": np.asarray(length, np.int64)} if stated else {}
        ((found,),) = run_built(model, [feeds])
        np.testing.assert_allclose(found[..., 0].astype(np.float64), signal, rtol=0, atol=1e-5)


def test_dft_when_its_axis_is_computed_from_constants_then_agrees() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Sub", ["rank", "two"], ["axis"]),
        helper.make_node("DFT", ["x", "", "axis"], ["y"]),
    ]
    model = make_model(nodes, {"x": (np.float32, ("B", 5, 8, 1))}, ["y"], {"two": np.asarray(2, np.int64)}, 20)
    assert_built_agrees(model, {"x": floats(2, 5, 8, 1)}, tolerance=2e-5)


@pytest.mark.parametrize("told", [{"step"}, {"length"}, {"step", "length"}])
@pytest.mark.parametrize(("parts", "half", "windowed"), [(1, 1, True), (1, 0, False), (2, 0, True)])
def test_stft_when_steps_or_lengths_come_at_run_time_then_agrees(
    told: set[str], parts: int, half: int, windowed: bool
) -> None:
    names = ["x", "step", "window" if windowed else "", "length"]
    node = helper.make_node("STFT", names, ["y"], onesided=half)
    numbers: dict[str, Array] = {"step": np.asarray(3, np.int64), "length": np.asarray(8, np.int64)}
    window = {"window": np.hanning(8).astype(np.float32)} if windowed else {}
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {"x": (np.float32, ["B", "L", parts])}
    inputs |= {name: (np.int64, []) for name in numbers if name in told}
    if windowed:
        inputs["window"] = (np.float32, ["W"])
    model = make_model([node], inputs, ["y"], {n: v for n, v in numbers.items() if n not in told}, 17)
    feeds = {"x": floats(2, 40, parts), **window, **{n: v for n, v in numbers.items() if n in told}}
    assert_built_agrees(model, feeds, tolerance=2e-5)


@pytest.mark.parametrize(("step", "length"), [(0, 8), (-1, 8), (3, 0), (3, 41)])
def test_stft_when_its_numbers_make_no_frames_then_the_run_is_refused(step: int, length: int) -> None:
    node = helper.make_node("STFT", ["x", "step", "", "length"], ["y"])
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {"x": (np.float32, ["B", "L", 1])}
    inputs |= {name: (np.int64, []) for name in ("step", "length")}
    model = make_model([node], inputs, ["y"], None, 17)
    numbers = {"step": np.asarray(step, np.int64), "length": np.asarray(length, np.int64)}
    with pytest.raises(TesseraError):
        run_built(model, [{"x": floats(1, 40, 1), **numbers}])


@pytest.mark.parametrize(("op", "opset"), [("DFT", 17), ("STFT", 17)])
def test_transform_when_numbers_may_be_real_or_complex_then_agrees(op: str, opset: int) -> None:
    names = ["x"] if op == "DFT" else ["x", "step", "", "length"]
    weights: dict[str, Array] = {"step": np.asarray(2, np.int64), "length": np.asarray(4, np.int64)}
    node = helper.make_node(op, names, ["y"], onesided=0)
    inputs: dict[str, tuple[type[np.generic], list[int | str]]] = {"x": (np.float32, ["B", "L", "P"])}
    model = make_model([node], inputs, ["y"], {} if op == "DFT" else weights, opset)
    assert_built_agrees(model, {"x": floats(2, 8, 1)}, {"x": floats(1, 9, 2)}, tolerance=2e-5)
    with pytest.raises(TesseraError, match="real or complex"):
        run_built(model, [{"x": floats(2, 8, 3)}])
