"""Profiles: every launch of a run is timed, named, counted and written as a trace."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tessera_runtime
from bundle_format.reader import open_bundle
from tessera_build.config import ConfigError, HostError, resource
from tessera_build.driver.bench import BenchRequest, bench
from tessera_build.driver.build import build
from tessera_build.driver.calls import calls_of
from tessera_build.driver.opened import graph_of
from tessera_build.driver.profile import Profile, ProfileRequest, profile
from tests.driver.models import STATEFUL, mlp, model_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, for this machine."""
    folder = tmp_path_factory.mktemp("profile")
    build(mlp(), targets=["native"], out=folder / "m.tessera", verify=False, workers=1, cache=folder / "cache")
    return folder / "m.tessera"


@pytest.fixture(scope="module")
def found(bundle: Path) -> Profile:
    """Its profile at a batch of 32, with a trace beside it."""
    sizes, trace = {"batch": 32}, bundle.with_suffix(".json")
    return profile(ProfileRequest(bundle, threads=1, dims=sizes, seconds=0.2, trace=trace))


def test_profile_when_measured_then_rows_are_the_products_and_shares_add_up(found: Profile) -> None:
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)
    assert list(found.rows) == sorted(found.rows, key=lambda row: -row.seconds)
    assert all(row.launches == 1 and row.seconds > 0 for row in found.rows)
    assert found.seconds > 0
    assert found.roofline.gflops > 1
    assert found.roofline.cache_gbps > found.roofline.memory_gbps / 2


def test_profile_when_sizes_are_known_then_operations_are_those_of_the_product(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, ["n", 64], ["n", 128])
    build(model, targets=["native"], out=tmp_path / "m.tessera", verify=False, workers=1, cache=tmp_path / "cache")
    found = profile(ProfileRequest(tmp_path / "m.tessera", threads=1, dims={"n": 32}, seconds=0.1))
    useful = 2 * 32 * 64 * 128
    assert useful <= sum(row.operations or 0 for row in found.rows) <= 1.5 * useful  # the last tile may overlap
    assert sum(row.bytes or 0 for row in found.rows) == 4 * (32 * 64 + 64 * 128 + 32 * 128)


def test_trace_when_written_then_launches_lie_inside_the_run_in_order(bundle: Path, found: Profile) -> None:
    events = json.loads(bundle.with_suffix(".json").read_text())["traceEvents"]
    run, *launches = events
    assert run["name"] == "run"
    assert {e["name"] for e in launches} >= {row.node for row in found.rows}
    ends = [event["ts"] + event["dur"] for event in launches]
    assert all(end <= start for end, start in zip(ends, [e["ts"] for e in launches][1:], strict=False))
    assert ends[-1] <= run["dur"]


def test_profiled_when_the_block_ends_then_nothing_is_called_any_more(bundle: Path) -> None:
    x = np.zeros((4, 20), np.float32)
    seen: list[tuple[int, int]] = []
    with tessera_runtime.load(bundle, threads=2) as model:
        with model.profiled(lambda launch, phase: seen.append((launch, phase))):
            model.run(x=x)
        assert seen
        assert seen[0][1] == 0
        assert len(seen) % 2 == 0
        before = len(seen)
        model.run(x=x)
        assert len(seen) == before


@pytest.fixture(scope="module")
def stateful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two entries, the first of which has a state, for a target from a file that is in no list."""
    folder = tmp_path_factory.mktemp("stateful")
    (folder / "model.py").write_text(STATEFUL, encoding="utf-8")
    target = resource("configs/targets/x86-64-v3.yaml").read_text(encoding="utf-8")
    (folder / "own.yaml").write_text(target.replace("name: x86-64-v3", "name: own"), encoding="utf-8")
    out, own = folder / "m.tessera", [str(folder / "own.yaml")]
    build(folder / "model.py", own, out, verify=False, workers=1, cache=folder / "cache")
    return out


@pytest.mark.parametrize(("entry", "sizes"), [(None, {"B": 4}), ("other", {"B": 4, "S": 3})])
def test_measurements_when_an_entry_has_a_state_or_is_a_further_one_then_it_is_measured(
    stateful: Path, entry: str | None, sizes: dict[str, int]
) -> None:
    found = profile(ProfileRequest(stateful, entry, threads=1, dims=sizes, seconds=0.1))
    beside = bench(BenchRequest(stateful, entry=entry, threads=1, dims=sizes, seconds=0.1))
    assert found.entry == beside.entry == (entry or "step")
    assert found.sizes == beside.sizes == sizes
    assert found.target == "own"
    assert sum(row.share for row in found.rows) == pytest.approx(1.0)


def test_calls_when_an_entry_has_a_state_then_every_run_begins_in_the_same_one(stateful: Path) -> None:
    with tessera_runtime.load(stateful) as model, open_bundle(stateful) as opened:
        calls = calls_of(model, graph_of(opened, opened.variants[0]), None, {"B": 2})
        first, second = (run() for run in calls.runs(2))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.abs(calls.initial["h"]).max() > 0


@pytest.mark.errors
@pytest.mark.parametrize(
    ("entry", "dims", "code", "part"),
    [
        ("othr", {}, "ENTRY_UNKNOWN", "did you mean other?"),
        ("step", {"S": 2}, "DIM_UNKNOWN", "expected: B"),
        ("step", {"B": 10**12}, "SIZES_TOO_LARGE", "B=1000000000000"),
    ],
)
def test_measurements_when_a_person_errs_then_it_is_said_how(
    stateful: Path, entry: str, dims: dict[str, int], code: str, part: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        profile(ProfileRequest(stateful, entry, dims=dims, seconds=0.1))
    assert caught.value.code == code
    assert part in caught.value.diagnostics()


@pytest.mark.errors
@pytest.mark.parametrize("place", [".", "nowhere/run.json"])
def test_profile_when_the_trace_has_no_place_to_go_then_it_is_said_before_anything_is_measured(
    bundle: Path, place: str
) -> None:
    with pytest.raises(HostError) as caught:
        profile(ProfileRequest(bundle, seconds=3600.0, trace=bundle.parent / place))
    assert caught.value.code == "OUTPUT_UNWRITABLE"
