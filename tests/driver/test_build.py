"""Whole builds: what comes out, and what is refused."""

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest

import tessera_build
import tessera_runtime
from bundle_format import BundleError, media
from bundle_format.reader import open_bundle
from tessera_build.config import BuildConfig, ConfigError, resource
from tessera_build.driver.opened import proofs_of
from tessera_build.driver.result import Event
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.frontends.onnx import ModelError, UnsupportedError
from tessera_build.verify.errors import VerificationError
from tests.driver.models import digits, embedding, mlp, unsupported
from tests.frontends_onnx.oracle import one_node
from tests.language.build import written

# A machine that does not exist: what it runs on x86-64-v4 beside, no processor lists the second feature.
FUTURE = {"name: x86-64-v3": "name: future", "\nfeatures:": "\nfeatures:\n  - avx10_9"}


def future_target(folder: Path) -> str:
    """The path of a target file that this machine cannot run."""
    text = resource("configs/targets/x86-64-v3.yaml").read_text(encoding="utf-8")
    for old, new in FUTURE.items():
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "future.yaml").write_text(text, encoding="utf-8")
    return str(folder / "future.yaml")


@pytest.mark.numerics
def test_build_when_digits_then_labels_the_test_images(tmp_path: Path, kernel_cache: Path) -> None:
    result = tessera_build.build(digits(), ["x86-64-v3"], tmp_path / "d.tessera", cache=kernel_cache)
    with np.load(resource("examples/digits/digits_test.npz")) as data, tessera_runtime.load(result.path) as model:
        (scores,) = model.run(image=data["image"]).values()
        assert np.mean(scores.argmax(axis=1) == data["label"]) >= 0.97
    assert result.digest == model.identity


@pytest.mark.numerics
def test_build_when_done_then_the_proof_names_references_sizes_and_groups(mlp_bundle: Path) -> None:
    with open_bundle(mlp_bundle) as bundle:
        proof = proofs_of(bundle)["x86-64-v3"]
    assert proof.method == "native"
    assert {"onnxruntime", "numpy"} <= proof.references.keys()
    small, large = (case.sizes["batch"] for case in proof.cases)
    assert small < 16 <= large
    assert {"first", "second", "scores"} <= {group.node for group in proof.groups}
    assert 0 < proof.max_error <= 1e-4
    errors = [output.errors for case in proof.cases for output in case.outputs]
    assert all(error.keys() == {"graph", "onnxruntime"} for error in errors)


@pytest.mark.bundle
def test_build_when_for_two_targets_then_holds_every_level_once_a_variant(mlp_bundle: Path) -> None:
    with open_bundle(mlp_bundle) as bundle:
        bundle.verify_full()
        assert {variant.config.target.name for variant in bundle.variants} == {"x86-64-v2", "x86-64-v3"}
        kinds = (media.GRAPH_IR, media.SCHEDULE_IR, media.TILE_IR, media.TUNING, media.ELF_CODE, media.C_HEADER)
        for variant in bundle.variants:
            assert [len(variant.layers(kind)) for kind in kinds] == [1] * len(kinds)
            assert not variant.layers(media.TARGET_IR)


@pytest.mark.bundle
def test_build_when_target_ir_is_asked_for_then_it_is_there(tmp_path: Path, kernel_cache: Path) -> None:
    config = BuildConfig(targets=("x86-64-v3",), levels=("graph", "target"))
    result = tessera_build.build(mlp(), out=tmp_path / "m", config=config, cache=kernel_cache)
    with open_bundle(result.path) as bundle:
        assert bundle.variants[0].layers(media.TARGET_IR)
        assert not bundle.variants[0].layers(media.TILE_IR)


@pytest.mark.numerics
def test_build_when_indices_select_rows_then_verification_stays_inside(tmp_path: Path, kernel_cache: Path) -> None:
    result = tessera_build.build(embedding(), ["x86-64-v3"], tmp_path / "e", cache=kernel_cache)
    assert result.verification[0].max_error == 0
    with tessera_runtime.load(result.path) as model, pytest.raises(tessera_runtime.RunError) as caught:
        model.run(x=np.array([0, 11]))
    assert (caught.value.code, caught.value.where) == ("INDEX_OUT_OF_RANGE", "lookup")


@pytest.mark.numerics
def test_build_when_the_machine_cannot_run_the_target_then_samples_tiles(tmp_path: Path, kernel_cache: Path) -> None:
    result = tessera_build.build(mlp(), [future_target(tmp_path)], tmp_path / "m", cache=kernel_cache)
    (proof,) = result.verification
    assert proof.method == "tile"
    assert {"first", "second", "scores"} <= {group.node for group in proof.groups}
    assert any("cannot run it" in warning for warning in result.warnings)
    (check,) = verify_bundle(result.path).variants
    assert check.method == "unproved"


@pytest.mark.unit
def test_build_when_watched_then_reports_every_stage_in_order(tmp_path: Path, kernel_cache: Path) -> None:
    events: list[Event] = []
    config = BuildConfig(targets=("x86-64-v3",))
    result = tessera_build.build(mlp(), out=tmp_path / "m", config=config, cache=kernel_cache, progress=events.append)
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == [timing.stage for timing in result.timings]
    assert all(event.done <= event.total for event in events)
    lowered = [(event.done, event.total) for event in events if event.stage == "lower" and event.total]
    assert len(lowered) > 1
    assert lowered == [(index + 1, len(lowered)) for index in range(len(lowered))]


@pytest.mark.numerics
def test_build_when_dims_are_bounded_then_the_bundle_refuses_other_sizes(tmp_path: Path, kernel_cache: Path) -> None:
    dims = {"batch": (2, 8)}
    result = tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", dims=dims, cache=kernel_cache)
    assert all(2 <= case.sizes["batch"] <= 8 for case in result.verification[0].cases)
    with tessera_runtime.load(result.path) as model:
        assert model.run(x=np.ones((8, 20), np.float32))["y"].shape == (8, 5)
        with pytest.raises(tessera_runtime.RunError, match="DIM_RANGE"):
            model.run(x=np.ones((9, 20), np.float32))


@pytest.mark.numerics
def test_build_when_a_dim_is_bounded_below_alone_then_any_larger_size_runs(tmp_path: Path, kernel_cache: Path) -> None:
    dims = {"batch": (2, None)}
    result = tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", dims=dims, verify=False, cache=kernel_cache)
    with tessera_runtime.load(result.path) as model:
        assert model.run(x=np.ones((900, 20), np.float32))["y"].shape == (900, 5)
        with pytest.raises(tessera_runtime.RunError, match="DIM_RANGE"):
            model.run(x=np.ones((1, 20), np.float32))


@pytest.mark.unit
def test_build_when_told_not_to_verify_then_says_so(tmp_path: Path, kernel_cache: Path) -> None:
    result = tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", verify=False, cache=kernel_cache)
    assert result.verification == ()
    assert result.warnings == ("the bundle was not verified",)


@pytest.mark.errors
def test_build_when_an_operator_is_unknown_then_names_its_node(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="match"):
        tessera_build.build(unsupported(), ["x86-64-v3"], tmp_path / "m", cache=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.errors
def test_build_when_the_model_is_missing_then_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        tessera_build.build(tmp_path / "nowhere.onnx", ["x86-64-v3"], tmp_path / "m")


@pytest.mark.errors
def test_build_when_a_dim_is_misspelt_then_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean batch"):
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", dims={"btach": 4})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("targets", "code"), [(["x86-64-v9"], "CONFIG_NAME_UNKNOWN"), (["x86-64-v3"] * 2, "TARGET_TWICE")]
)
def test_build_when_targets_are_wrong_then_refuses(tmp_path: Path, targets: list[str], code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        tessera_build.build(mlp(), targets, tmp_path / "m")


@pytest.mark.errors
def test_build_when_the_folder_is_missing_then_refuses_before_working(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(ConfigError, match="OUTPUT_FOLDER_MISSING"):
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "no" / "m", progress=events.append)
    assert events == []


@pytest.mark.errors
def test_build_when_the_disk_is_full_then_leaves_nothing(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "warm", cache=kernel_cache)
    (tmp_path / "warm").unlink()
    write, room = os.write, [10_000]

    def full(descriptor: int, data: bytes) -> int:
        if os.path.realpath(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path)):
            room[0] -= len(data)
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BundleError, match="DISK_FULL"):
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unit
def test_build_config_when_it_names_workers_then_is_used(tmp_path: Path, kernel_cache: Path) -> None:
    config = dataclasses.replace(BuildConfig(), targets=("x86-64-v2",), threads=1)
    assert tessera_build.build(mlp(), out=tmp_path / "m", config=config, cache=kernel_cache).targets == ("x86-64-v2",)


@pytest.mark.unit
def test_package_when_asked_for_an_unknown_name_then_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        tessera_build.biuld  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.errors
def test_build_when_a_model_reads_outside_its_data_then_its_proof_says_that_the_model_accepts_no_input(
    tmp_path: Path,
) -> None:
    model = one_node("Gather", {"x": (5, 3)}, {"i": np.array([0, 7])}, axis=0)
    with pytest.raises(VerificationError, match="no random inputs were found that the model accepts") as caught:
        tessera_build.build(model, ["x86-64-v3"], tmp_path / "m", workers=1, cache=None)
    assert (caught.value.code, caught.value.found) == ("INPUTS_NOT_FOUND", "gather reads outside its data")


@pytest.mark.errors
def test_build_when_one_of_several_entries_accepts_no_input_then_its_proof_names_it_and_the_line(
    tmp_path: Path,
) -> None:
    body = """
    @graph.module("doubled")
    def doubled(x: Tensor[4]):
        return x * 2.0

    @graph.module("picked")
    def picked(x: Tensor["B", 4], low: Tensor["B", 1]):
        below = op.reduce_sum(op.cast(x < low, i64), axes=-1)
        return op.take_along(x, below[:, None] + 4, -1)
    """
    model = written(tmp_path, body)
    line = next(n for n, text in enumerate(model.read_text().splitlines(), 1) if "take_along" in text)
    with pytest.raises(VerificationError, match="accepts in its entry picked") as caught:
        tessera_build.build(model, ["native"], tmp_path / "m", workers=1, cache=None)
    assert caught.value.where == f"model.py:{line}:12"
