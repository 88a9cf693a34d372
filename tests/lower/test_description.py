"""Code says how many inputs and outputs each entry has: a config that says less is refused before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle_format.errors import BundleError
from bundle_format.schema import Entry
from bundle_format.writer import Variant, write_bundle
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_runtime import load, loader
from tests.lower.compiled import compile_module


def _built() -> Variant:
    """Two inputs, the second read alone by the second output."""
    b = GraphBuilder()
    x, y = (b.input(name, tensor(F32, 4)) for name in "xy")
    b.output("double", b.op("add", x, x))
    b.output("sum", b.op("add", x, y))
    return compile_module(b.finish()).variant


def _without(variant: Variant, **changes: object) -> Variant:
    (entry,) = variant.config.entries
    changed = Entry(**{**entry._asdict(), **changes})  # type: ignore[arg-type]
    return replace(variant, config=variant.config._replace(entries=(changed,)))


@pytest.mark.errors
@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_load_when_the_config_leaves_an_argument_out_then_is_refused(what: str, tmp_path: Path) -> None:
    variant = _built()
    (entry,) = variant.config.entries
    write_bundle(tmp_path / "sound", [variant])
    with load(tmp_path / "sound", threads=1) as model:
        ones = np.ones(4, np.float32)
        np.testing.assert_array_equal(model.run({"x": ones, "y": ones})["sum"], 2 * ones)
    write_bundle(tmp_path / "less", [_without(variant, **{what: getattr(entry, what)[:1]})])
    with pytest.raises(BundleError, match="CODE_MISMATCH"):
        load(tmp_path / "less")


@pytest.mark.unit
@pytest.mark.parametrize(("found", "fits"), [({"later": [1]}, True), ({"weights": 9}, False), ({"abi": 2}, False)])
def test_description_when_it_says_more_than_is_known_then_only_what_is_known_counts(
    found: dict[str, object], fits: bool
) -> None:
    config = _built().config
    told: dict[str, object] = {"abi": 1, "entries": ["main"], "weights": 0, **found}
    if fits:
        loader.check_description(told, config)
        return
    with pytest.raises(BundleError, match="CODE_MISMATCH"):
        loader.check_description(told, config)
