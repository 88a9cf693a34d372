"""A recursion that runs out is told as what it is: dims are blamed only where they were followed."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from pathlib import Path

import pytest

from tessera_build.driver import build as driver
from tessera_build.frontends.onnx import UnsupportedError
from tessera_build.ir.core.dims import Extent, floordiv, symbol
from tests.driver.models import mlp

pytestmark = pytest.mark.errors


def _follow_number(count: int) -> int:
    return _follow_number(count + 1) + 1


def _follow_extent(extent: Extent) -> Extent:
    return _follow_extent(floordiv(extent + 1, 2))


def _follow_elsewhere(_: object) -> None:
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(_follow_number, 0).result()


def _refusal(stage: Callable[[object], object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> UnsupportedError:
    monkeypatch.setattr(driver, "STAGES", (("lower", stage),))
    with pytest.raises(UnsupportedError) as caught:
        driver.build(mlp(), ["x86-64-v3"], folder / "m")
    assert caught.value.code == "NESTED_TOO_DEEP"
    return caught.value


def test_recursion_when_it_follows_no_dims_then_names_the_function_and_not_the_dims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _refusal(lambda _: _follow_number(0), tmp_path, monkeypatch)
    assert "'lower'" in error.message
    assert "dims" not in error.diagnostics()
    assert error.found is not None
    assert error.found.endswith("calls within each other of test_nesting._follow_number")


def test_recursion_when_it_follows_expressions_over_dims_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _refusal(lambda _: _follow_extent(symbol("N")), tmp_path, monkeypatch)
    assert "expressions over the model's dims" in error.message
    assert "--dims" in (error.hint or "")


def test_recursion_when_in_another_process_then_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _refusal(_follow_elsewhere, tmp_path, monkeypatch)
    assert (error.found, "dims" in error.diagnostics()) == (None, False)
