"""Misuse of a model and statuses of its code: one error each, with the name, what was expected and what was found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle_format.dims import parse_dim
from bundle_format.errors import TesseraError
from bundle_format.schema import DimRange, Entry, StateAlias, Value
from bundle_format.writer import Variant, write_bundle
from tessera_runtime import BundleError, Model, RunError, State, load
from tessera_runtime.binding import DimBinder
from tessera_runtime.errors import status_error
from tests.runtime.conftest import ARCH
from tests.runtime.sample import sample_config, sample_variant, without_entry, without_last_output

X = np.ones((4, 3), np.float32)


class OnAnotherDevice:
    """An array whose memory the CPU cannot read."""

    def __dlpack__(self, **arguments: object) -> object:
        raise BufferError("the array is on device 2")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


MISUSES: list[tuple[str, str, Callable[[Model], object]]] = [
    ("INPUT_MISSING", "x", lambda model: model.run()),
    ("INPUT_MISSING", "x", lambda model: model.run({"z": X})),
    ("INPUT_UNKNOWN", "z", lambda model: model.run(x=X, z=X)),
    ("INPUT_DTYPE", "x", lambda model: model.run(x=X.astype(np.float64))),
    ("INPUT_DTYPE", "x", lambda model: model.run(x=X.astype(">f4"))),
    ("INPUT_KIND", "x", lambda model: model.run(x=[[1.0, 2.0, 3.0]])),
    ("INPUT_KIND", "x", lambda model: model.run(x=None)),
    ("INPUT_KIND", "x", lambda model: model.run(x=OnAnotherDevice())),
    ("INPUT_RANK", "x", lambda model: model.run(x=X[0])),
    ("INPUT_SHAPE", "x", lambda model: model.run(x=X[:, :2])),
    ("DIM_RANGE", "axis 0 of 'x'", lambda model: model.run(x=X[:0])),
    ("DIM_RANGE", "axis 0 of 'x'", lambda model: model.run(x=np.ones((2001, 3), np.float32))),
    ("OUTPUT_UNKNOWN", "z", lambda model: model.run(x=X, out={"z": X})),
    ("OUTPUT_MISMATCH", "y", lambda model: model.run(x=X, out={"y": np.empty((3, 3), np.float32)})),
    ("OUTPUT_MISMATCH", "y", lambda model: model.run(x=X, out={"y": np.empty((4, 3), np.float64)})),
    ("OUTPUT_LAYOUT", "y", lambda model: model.run(x=X, out={"y": np.empty((3, 4), np.float32).T})),
    ("OUTPUT_OVERLAP", "y", lambda model: model.run(x=X, out={"y": X})),
    ("STATE_MISSING", "", lambda model: model.entries["step"].run({"x": X[0]})),
    ("STATE_GIVEN", "s", lambda model: step_with(model, {"x": X[0], "s": X[0]})),
    ("STATE_UNKNOWN", "q", lambda model: model.entries["step"].new_state({"q": X[0]})),
    ("STATE_UNKNOWN", "", lambda model: model.run({"x": X}, state=model.entries["step"].new_state())),
    ("STATE_UNKNOWN", "", lambda model: model.entries["step"].run({"x": X[0]}, state=State(OTHER, {}))),
]

OTHER = Entry("other", (Value("q", "f32", (3,)),), (Value("r", "f32", (3,)),), states=(StateAlias("q", "r"),))


def step_with(model: Model, feeds: dict[str, Any]) -> object:
    step = model.entries["step"]
    return step.run(feeds, state=step.new_state())


@pytest.mark.errors
@pytest.mark.parametrize(("code", "where", "misuse"), MISUSES)
def test_call_when_misused_then_names_what_is_wrong(
    model: Model, code: str, where: str, misuse: Callable[[Model], object]
) -> None:
    with pytest.raises(RunError) as caught:
        misuse(model)
    assert (caught.value.code, caught.value.where or "") == (code, where)
    np.testing.assert_array_equal(model.run(x=X)["last"], [4])


@pytest.mark.errors
def test_shape_when_wrong_then_message_says_expected_and_found(model: Model) -> None:
    with pytest.raises(RunError) as caught:
        model.run(x=X[:, :2])
    assert caught.value.diagnostics().splitlines() == [
        "error[INPUT_SHAPE]: the input 'x' has another extent on axis 1",
        "  at:       x",
        "  expected: [N, 3]",
        "  found:    [4, 2]",
    ]


@pytest.mark.errors
def test_run_when_the_code_refuses_a_value_then_names_the_node(model: Model) -> None:
    x = X.copy()
    x[2, 0] = -1
    with pytest.raises(RunError) as caught:
        model.run(x=x)
    assert (caught.value.code, caught.value.where) == ("INDEX_OUT_OF_RANGE", "gather_rows")


@pytest.mark.errors
def test_bf16_when_a_foreign_tensor_is_of_another_type_then_both_are_named(model: Model) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RunError) as caught:
        model.entries["bits"].run({"p": torch.zeros(3, dtype=torch.float8_e4m3fn)})
    assert (caught.value.code, caught.value.found) == ("INPUT_DTYPE", "f8e4m3")


@pytest.mark.errors
def test_run_when_a_guard_fails_then_speaks_the_guards_words(model: Model) -> None:
    with pytest.raises(RunError) as caught:
        model.run(x=np.ones((1001, 3), np.float32))
    error = caught.value
    assert (error.code, error.message) == ("GUARD_FAILED", "at most 1000 rows at once")
    assert (error.expected, error.found) == ("N <= 1000", "1001 and 1000")


@pytest.mark.errors
def test_status_when_unknown_or_without_node_then_is_still_an_error() -> None:
    config = sample_config("plain", (), ARCH)
    assert status_error(2, -1, [0] * 4, config).code == "DIVISION_BY_ZERO"
    assert status_error(2, 99, [0] * 4, config).where is None
    assert status_error(4, -1, [7, 0, 0, 0], config).code == "GUARD_FAILED"
    placed = config._replace(guards=(config.guards[0]._replace(at="model.py:7:5"),))
    assert [status_error(4, -1, [0, 1001, 1000, 0], c).where for c in (config, placed)] == [None, "model.py:7:5"]
    assert status_error(77, -1, [0] * 4, config).code == "STATUS_UNKNOWN"


@pytest.mark.errors
def test_state_when_used_by_two_calls_at_once_then_the_second_is_refused(model: Model) -> None:
    step = model.entries["step"]
    state = step.new_state()
    state.acquire()
    with pytest.raises(RunError, match="STATE_BUSY"):
        step.run({"x": X[0]}, state=state)
    state.release()
    step.run({"x": X[0]}, state=state)


@pytest.mark.errors
def test_model_when_closed_then_refuses_to_run(bundle: Path) -> None:
    model = load(bundle)
    model.close()
    model.close()
    with pytest.raises(RunError, match="MODEL_CLOSED"):
        model.run(x=X)


@pytest.mark.errors
@pytest.mark.parametrize(
    "arguments", [{"threads": 0}, {"threads": 1 << 20}, {"threads": 1.5}, {"threads": "2"}, {"verify": "none"}]
)
def test_load_when_an_argument_is_not_sensible_then_is_refused(bundle: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="ARGUMENT"):
        load(bundle, **arguments)


@pytest.mark.errors
def test_load_when_no_variant_fits_then_says_what_each_needs(tmp_path: Path) -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    variants = [sample_variant(b"", "wide", ("avx9000", "amx-fp4"), ARCH), sample_variant(b"", "foreign", (), other)]
    write_bundle(tmp_path / "m", variants)
    with pytest.raises(RunError) as caught:
        load(tmp_path / "m")
    assert caught.value.code == "MACHINE_UNSUITABLE"
    assert "wide: this CPU lacks avx9000, amx-fp4" in (caught.value.expected or "")
    assert f"foreign: its code is for {other}" in (caught.value.expected or "")


@pytest.mark.errors
def test_load_when_code_is_not_the_configs_then_is_refused(library: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [without_entry(sample_variant(library.read_bytes(), arch=ARCH))])
    with pytest.raises(BundleError, match="CODE_MISMATCH"):
        load(tmp_path / "m")


@pytest.mark.errors
def test_run_when_code_has_more_outputs_than_the_config_then_is_refused(library: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [without_last_output(sample_variant(library.read_bytes(), arch=ARCH))])
    with load(tmp_path / "m") as model, pytest.raises(RunError, match="CODE_MISMATCH"):
        model.run({"x": np.zeros((2, 3), np.float32)})


@pytest.mark.errors
def test_load_when_code_cannot_be_mapped_then_is_refused(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", [sample_variant(b"not an object file", arch=ARCH)])
    with pytest.raises(RunError, match="CODE_UNMAPPABLE"):
        load(tmp_path / "m")


@pytest.mark.errors
def test_load_when_a_byte_of_code_is_changed_then_nothing_is_mapped(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "m", [sample_variant(library.read_bytes(), arch=ARCH)])
    data = bytearray((tmp_path / "m").read_bytes())
    data[data.index(b"\x7fELF") + 5000] ^= 1
    (tmp_path / "m").write_bytes(data)
    mapped: list[object] = []
    monkeypatch.setattr("tessera_runtime.loader.CodeImage", mapped.append)
    with pytest.raises(BundleError, match="BLOB_DAMAGED"):
        load(tmp_path / "m")
    assert not mapped


def binder(*inputs: Value) -> DimBinder:
    names = sorted(
        {name for value in inputs for extent in value.shape if not isinstance(extent, int) for name in extent.symbols}
    )
    return DimBinder(Entry("main", inputs, (), tuple(DimRange(name) for name in names)))


@pytest.mark.unit
def test_dims_when_expressions_agree_then_are_bound_in_order() -> None:
    bound = binder(Value("a", "f32", (parse_dim("2*S+1"), 3)), Value("b", "f32", (parse_dim("S"), parse_dim("B"))))
    assert bound.bind([(11, 3), (5, 2)]) == (2, 5)


@pytest.mark.errors
def test_dims_when_an_expression_disagrees_then_tells_where_its_symbols_come_from() -> None:
    bound = binder(Value("a", "f32", (parse_dim("2*S+1"),)), Value("b", "f32", (parse_dim("S"),)))
    with pytest.raises(TesseraError) as caught:
        bound.bind([(10,), (5,)])
    assert (caught.value.code, caught.value.where) == ("INPUT_SHAPE", "a")
    assert caught.value.hint == "2*S+1 is 11: S is 5, from axis 0 of 'b'"


@pytest.mark.errors
def test_dims_when_one_never_stands_alone_then_the_bundle_is_refused() -> None:
    with pytest.raises(BundleError, match="DIM_UNBOUND"):
        binder(Value("a", "f32", (parse_dim("2*S"),)))


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["i4", "u2", "f4e2m1"])
def test_values_when_narrower_than_a_byte_then_travel_one_to_a_byte(library: Path, tmp_path: Path, dtype: str) -> None:
    variant = sample_variant(library.read_bytes(), arch=ARCH)
    narrow = variant.config.entries[3]._replace(inputs=(Value("p", dtype, (parse_dim("N"),)),))
    config = variant.config._replace(entries=(*variant.config.entries[:3], narrow, *variant.config.entries[4:]))
    write_bundle(tmp_path / "m", [Variant(config, variant.layers)])
    with load(tmp_path / "m") as model:
        assert model.entries["bits"].inputs[0].numpy.itemsize == 1
