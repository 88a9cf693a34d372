"""Running a model: what goes in and out, from one thread and many, with states, given outputs and foreign arrays."""

import array
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bundle_format.schema import StateAlias
from bundle_format.writer import copy_bundle
from tessera_runtime import Model, State, TensorSpec, load
from tessera_runtime.arrays import address_of
from tests.runtime.sample import ENTRIES, SCALE, SHIFT

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def rows(count: int) -> Floats:
    """An input of this many rows."""
    return np.arange(1, 3 * count + 1, dtype=np.float32).reshape(count, 3)


def check_main(out: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]], x: Floats) -> None:
    """Compare an answer of `main` with numpy's, bit for bit."""
    np.testing.assert_array_equal(out["y"], x * SCALE + SHIFT)
    np.testing.assert_array_equal(out["last"], [len(x)])


@pytest.mark.unit
def test_model_when_loaded_then_shows_its_signature(model: Model) -> None:
    assert model.inputs == (TensorSpec("x", "f32", ("N", 3)),)
    assert model.outputs == (TensorSpec("y", "f32", ("N", 3)), TensorSpec("last", "i64", (1,)))
    assert model.inputs[0].numpy == np.float32
    assert list(model.entries) == ["main", "step", "spin", "bits", "wait"]
    assert [spec.name for spec in model.entries["step"].inputs] == ["x"]
    assert [spec.name for spec in model.entries["step"].states] == ["s"]


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_run_when_given_other_sizes_and_threads_then_equals_numpy(bundle: Path, threads: int) -> None:
    with load(bundle, threads=threads) as loaded:
        for count in (1, 7, 1000, 2, 7):
            x = rows(count)
            check_main(loaded.run({"x": x}), x)
            check_main(loaded.run(x=x), x)


@pytest.mark.numerics
@pytest.mark.parametrize("count", [683, 701, 850, 999])
def test_run_when_an_output_is_large_then_it_begins_with_a_cache_line(model: Model, count: int) -> None:
    x = rows(count)
    found = model.run(x=x)
    check_main(found, x)
    assert found["y"].ctypes.data % 64 == 0
    assert found["y"].flags.c_contiguous
    assert found["y"].flags.writeable


@pytest.mark.numerics
def test_run_when_the_bundle_is_a_folder_then_gives_the_same(bundle: Path, tmp_path: Path) -> None:
    copy_bundle(bundle, tmp_path / "folder", directory=True)
    with load(tmp_path / "folder", verify="full") as loaded:
        check_main(loaded.run(x=rows(4)), rows(4))


class OnlyDlpack:
    """An array of another library: nothing but DLPack."""

    def __init__(self, values: Floats) -> None:
        self._values = values

    def __dlpack__(self, **arguments: object) -> object:
        return self._values.__dlpack__(**arguments)  # type: ignore[arg-type]

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.numerics
def test_run_when_input_is_foreign_or_strided_then_values_are_the_same(model: Model) -> None:
    x = rows(4)
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.repeat(x, 2, axis=0)[::2]
    by_column = np.asfortranarray(x)
    view = memoryview(array.array("f", x.ravel().tolist())).cast("B").cast("f", (4, 3))
    for value in (frozen, strided, by_column, view, OnlyDlpack(x), x.view(np.matrix)):
        check_main(model.run(x=value), x)


@pytest.mark.numerics
def test_run_when_outputs_are_given_then_writes_into_them(model: Model) -> None:
    x = rows(5)
    y = np.zeros((5, 3), np.float32)
    out = model.run({"x": x}, out={"y": y})
    assert out["y"] is y
    check_main(out, x)


@pytest.mark.numerics
def test_bf16_when_run_then_travels_as_its_bits(model: Model) -> None:
    bits = np.array([0x3F80, 0x4000, 0xFFFF], np.uint16)
    out = model.entries["bits"].run({"p": bits})
    assert out["o"].dtype.itemsize == 2
    np.testing.assert_array_equal(out["o"].view(np.uint16), bits)


@pytest.mark.numerics
def test_bf16_when_a_torch_tensor_is_given_then_its_bits_are_read_by_dlpack(model: Model) -> None:
    torch = pytest.importorskip("torch")
    given = torch.tensor([1.0, 2.0, -3.5]).bfloat16()
    out = model.entries["bits"].run({"p": given})
    assert torch.equal(torch.from_numpy(out["o"].view(np.uint16)).view(torch.bfloat16), given)


@pytest.mark.numerics
def test_bf16_when_ml_dtypes_is_there_then_its_type_is_taken(bundle: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with load(bundle) as loaded:
        values = np.array([1.0, -2.5], ml_dtypes.bfloat16)
        out = loaded.entries["bits"].run({"p": values})
        assert out["o"].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(out["o"].astype(np.float32), [1.0, -2.5])


@pytest.mark.numerics
def test_state_when_carried_then_accumulates_and_streams_are_apart(model: Model) -> None:
    step, x = model.entries["step"], np.ones(3, np.float32)
    first, second = step.new_state(), step.new_state({"s": np.full(3, 10, np.float32)})
    for count in range(1, 5):
        np.testing.assert_array_equal(step.run({"x": x}, state=first)["y"], np.full(3, count))
        np.testing.assert_array_equal(step.run({"x": x}, state=second)["y"], np.full(3, count + 10))
    np.testing.assert_array_equal(first.arrays["s"], np.full(3, 4))


@pytest.mark.unit
def test_state_when_made_for_an_entry_in_place_then_another_entry_does_not_write_over_what_it_reads(
    model: Model,
) -> None:
    alias = StateAlias("s", "t", in_place=True)
    state = State(next(entry for entry in ENTRIES if entry.name == "step")._replace(states=(alias,)), {})
    once = state.next_array("s", (3,), in_place=True)
    state.replace({"s": once})
    before = state.arrays["s"]
    model.entries["step"].run({"x": np.ones(3, np.float32)}, state=state)
    np.testing.assert_array_equal(state.arrays["s"], np.ones(3))
    np.testing.assert_array_equal(before, np.zeros(3))


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 3])
def test_run_when_called_from_many_threads_then_every_answer_is_right(bundle: Path, threads: int) -> None:
    failures: list[BaseException] = []

    def serve(seed: int) -> None:
        try:
            for count in range(1, 40):
                x = rows(seed * 10 + count % 5 + 1) / 8
                found = loaded.entries["spin"].run({"x": x})["c"]
                np.testing.assert_array_equal(found, [x.sum(dtype=np.float64)])
        except BaseException as error:
            failures.append(error)

    with load(bundle, threads=threads) as loaded:
        workers = [threading.Thread(target=serve, args=(seed,)) for seed in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not failures


@pytest.mark.unit
def test_models_when_several_are_open_then_do_not_disturb_each_other(bundle: Path) -> None:
    models = [load(bundle, threads=2) for _ in range(4)]
    models[0].close()
    for loaded in models[1:]:
        check_main(loaded.run(x=rows(3)), rows(3))
        loaded.close()
    with load(bundle, threads=2) as again:  # the first model's code serves the pool of the process, closed or not
        check_main(again.run(x=rows(3)), rows(3))


@pytest.mark.unit
def test_model_when_explained_then_gives_a_reason_for_each_variant(model: Model) -> None:
    lines = model.explain().splitlines()
    assert lines[0] == "plain: chosen, this machine has all 0 features that it needs"
    assert lines[1] == "wide: refused, this CPU lacks avx9000"
    assert "threads: 2" in lines
    assert (model.target, model.threads) == ("plain", 2)


def test_address_when_arrays_are_views_or_transposed_then_is_the_one_that_they_state() -> None:
    base = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    for view in (base, base[1:], base[:, ::-1], base.T, np.empty(0, np.int8), np.asfortranarray(base), base[1, 2]):
        assert address_of(view) == view.__array_interface__["data"][0]
