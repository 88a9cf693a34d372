"""Schedules from a file: what a bundle prints is followed, and what does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle_format import media
from bundle_format.errors import TesseraError
from bundle_format.packed_text import unpack_text
from bundle_format.reader import open_bundle
from tessera_build.config import BuildConfig, ConfigError
from tessera_build.driver.bisect import BisectRequest, bisect
from tessera_build.driver.build import build
from tessera_build.driver.inspect import show_level
from tessera_build.driver.result import BuildResult
from tessera_build.ir.schedule.program_text import NamedSchedule, parse_named, print_named
from tessera_build.ir.schedule.trace import Bind, Rewrite, Schedule, Split, Step

TARGET = "x86-64-v3"
Maker = Callable[[str | None], BuildResult]


def _convolutions() -> object:
    """Two convolutions of 3 x 3 taps and a product, by name."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w0", (32, 16, 3, 3)), ("w1", (32, 32, 3, 3)), ("w2", (32, 8)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w1"], ["b"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], "pool"),
        helper.make_node("Flatten", ["c"], ["d"], "flat"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], "last"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 28, 28])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])]
    graph = helper.make_graph(nodes, "model", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    def run(text: str | None, *, config: BuildConfig | None = None) -> BuildResult:
        file = tmp_path / "given.mlir"
        if text is not None:
            file.write_text(text, encoding="utf-8")
        out = tmp_path / "model.tessera"
        model = _convolutions()
        given = None if text is None else file
        return build(model, [TARGET], out, workers=1, verify=False, schedules=given, config=config)  # type: ignore[arg-type]

    return run


def _named(result: BuildResult) -> dict[str, Schedule]:
    return {entry.node: entry.schedule for entry in parse_named(show_level(result.path, "schedule"))}


def _text(name: str, schedule: Schedule) -> str:
    return print_named([NamedSchedule(name, schedule)])


def test_schedules_when_a_bundle_prints_them_then_they_are_its_input_and_the_code_is_the_same(make: Maker) -> None:
    first = make(None)
    text, before = show_level(first.path, "schedule"), show_level(first.path, "target")
    again = make(text)
    assert show_level(again.path, "schedule") == text
    assert show_level(again.path, "target") == before
    assert again.digest != first.digest
    assert make(text).digest == again.digest


def test_schedule_when_one_task_is_given_then_that_task_has_it_and_no_other_changes(make: Maker) -> None:
    before = _named(make(None))
    by_hand = before["last"].with_block(_d1=8)
    result = make(_text("last", by_hand))
    assert _named(result) == before | {"last": by_hand}
    with open_bundle(result.path) as bundle:
        variant = bundle.variants[0]
        tuning = unpack_text(bundle.read(variant.layers(media.TUNING)[0]))
        assert "schedules" in variant.config.sources
    assert tuning.count('"origin":"given"') == 1


def test_schedules_when_tasks_share_a_name_then_entries_mean_them_in_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["x", "z", "x"], ["c"], "joined", axis=1),
        helper.make_node("Exp", ["c"], ["y"], "last"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [6, 5]), ("z", [6, 2]))
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [6, 12]) for name in ("y", "c")]
    model = helper.make_model(
        helper.make_graph(nodes, "model", values, outputs), opset_imports=[helper.make_opsetid("", 17)]
    )
    out, file = tmp_path / "model.tessera", tmp_path / "given.mlir"
    build(model, [TARGET], out, workers=1, verify=False)  # type: ignore[arg-type]
    text = show_level(out, "schedule")
    names = [entry.node for entry in parse_named(text)]
    assert names.count("joined") == 3
    changed = [
        replace(entry, schedule=entry.schedule.with_block(_d1=1 + number)) if entry.node == "joined" else entry
        for number, entry in enumerate(parse_named(text))
    ]
    file.write_text(print_named(changed), encoding="utf-8")
    build(model, [TARGET], out, workers=1, verify=False, schedules=file)  # type: ignore[arg-type]
    assert list(parse_named(show_level(out, "schedule"))) == changed
    file.write_text(print_named([*changed, *changed]), encoding="utf-8")
    with pytest.raises(ConfigError, match="other tasks of this name"):
        build(model, [TARGET], out, workers=1, verify=False, schedules=file)  # type: ignore[arg-type]


def test_schedule_when_it_rewrites_otherwise_then_the_policy_still_bounds_the_error(make: Maker) -> None:
    schedule = _named(make(None))["second"]
    step = schedule.rewritten()
    assert step is not None
    assert step.tile == 4
    smaller = Schedule(tuple(Rewrite(2, step.block, step.panels) if s is step else s for s in schedule.steps))
    assert _named(make(_text("second", smaller)))["second"] == smaller


REJECTED: dict[str, tuple[str, Step]] = {
    "an axis that is not there": ("last", Split("_d7", 4)),
    "an inexact algorithm": ("second", Rewrite(6, 4)),
    "an algorithm for a product": ("last", Rewrite(4, 4)),
}


@pytest.mark.errors
@pytest.mark.parametrize("what", REJECTED)
def test_schedule_when_a_step_does_not_fit_then_the_task_and_the_reason_are_named(what: str, make: Maker) -> None:
    name, step = REJECTED[what]
    schedule = _named(make(None))[name].with_steps(step)
    with pytest.raises(ConfigError) as caught:
        make(_text(name, schedule))
    assert caught.value.code == "SCHEDULE_REJECTED"
    assert caught.value.exit_code == 2
    shown = caught.value.diagnostics()
    assert name in shown
    assert "given.mlir" in shown
    assert caught.value.found


@pytest.mark.errors
@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        (_text("secnd", Schedule((Split("_d0", 1),))), "TASK_UNKNOWN", "did you mean second?"),
        (_text("last", Schedule((Split("_d0", 1),))) * 2, "SCHEDULES_TOO_MANY", "2 schedules"),
        ('"tsched.task"() <{node = "last", trace = [{step = "spilt"}]}>', "TEXT_SYNTAX", "given.mlir:1:18"),
        ('"tsched.task"() <{node = "last"}>', "TEXT_SYNTAX", "trace"),
        (_text("last", Schedule((Bind("_d1", "parallel"),))).replace("parallel", "vector"), "TEXT_SYNTAX", "'unroll'"),
        (_text("last", Schedule((Split("_d1", 8),))).replace("bit-pres", "pres"), "TEXT_SYNTAX", "'bit-preserving'"),
        ('"tsched.tusk"() <{}>', "TEXT_SYNTAX", "tsched.task"),
        ('"tsched.task"() <{node = "last", trace = []}> ({', "TEXT_SYNTAX", "do not end"),
        (_text("lost", Schedule()), "TASK_UNKNOWN", "did you mean last?"),
        ("// nothing\n", "SCHEDULES_EMPTY", "inspect"),
    ],
)
def test_schedules_when_a_person_errs_then_it_is_said_where(text: str, code: str, part: str, make: Maker) -> None:
    with pytest.raises(TesseraError) as caught:
        make(text)
    assert caught.value.code == code
    assert part in caught.value.diagnostics()


@pytest.mark.errors
def test_schedules_when_the_file_is_missing_then_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        build(_convolutions(), [TARGET], tmp_path / "model.tessera", schedules=tmp_path / "no.mlir")  # type: ignore[arg-type]
    assert "no.mlir" in caught.value.diagnostics()


@pytest.mark.errors
def test_bisect_when_schedules_were_given_then_it_is_refused(make: Maker, tmp_path: Path) -> None:
    path = make(_text("last", _named(make(None))["last"])).path
    with pytest.raises(ConfigError) as caught:
        bisect(BisectRequest(path, _convolutions(), {}, tmp_path / "out", {}))  # type: ignore[arg-type]
    assert caught.value.code == "SCHEDULES_GIVEN"
