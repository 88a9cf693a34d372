"""Sketches, sampling, features and the cost model: deterministic, total, fast, and what the default schedule is."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.text.lexer import TextError
from tessera_build.ir.schedule.trace import Schedule, ScheduleRejectedError, Split
from tessera_build.ir.schedule.trace_text import parse_schedule, print_schedule
from tessera_build.lower.program.kernels import LoweredTask, derived, lower_task
from tessera_build.space.contraction import rest_of
from tessera_build.space.derive import best_of
from tessera_build.space.features import FEATURES
from tessera_build.space.sample import enumerate_all, enumerate_block, sample
from tests.lower.execution import AVX2, AVX512
from tests.space.tasks import BUILDS, setting_of, spaces

NAMES = tuple(BUILDS)
RULES = {
    "product": "product",
    "batched": "product",
    "convolution": "product",
    "tapped": "winograd",
    "strided": "product",
    "depthwise": "window",
    "bottleneck": "chain",
    "pool": "window",
    "softmax": "row",
    "columns": "row",
    "elementwise": "pointwise",
    "moved": "crossed",
}


@pytest.mark.parametrize("name", NAMES)
def test_sketches_when_a_task_has_properties_then_the_rule_for_them_gives_one(name: str) -> None:
    assert RULES[name] in [space.sketch.rule for space in spaces(name)]


@pytest.mark.parametrize("name", NAMES)
def test_sample_when_seeds_are_equal_then_vectors_are_and_all_are_legal(name: str) -> None:
    for space in spaces(name):
        first, again, other = sample(space, 50, 7), sample(space, 50, 7), sample(space, 50, 8)
        assert first.shape == (50, len(space.sketch.decisions))
        assert first.tobytes() == again.tobytes()
        assert space.legal(first).all()
        assert other.tobytes() != first.tobytes() or space.sketch.size < 50


@pytest.mark.parametrize("name", NAMES)
def test_sample_when_vectors_are_filled_then_each_replays_or_is_rejected_with_a_reason(name: str) -> None:
    setting = setting_of(name)
    found = spaces(name)

    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 1 << 30), st.integers(0, len(found) - 1))
    def total(seed: int, index: int) -> None:
        (vector,) = sample(found[index], 1, seed)
        schedule, reason = found[index].sketch.fill(vector), ""
        lowered: tuple[LoweredTask, ...] = ()
        try:
            lowered = lower_task(setting, AVX2, lambda _setting, _machine: schedule)
        except ScheduleRejectedError as error:
            reason = error.diagnostics()
        assert bool(lowered) != bool(reason)

    total()


@pytest.mark.parametrize("name", NAMES)
def test_schedule_text_when_printed_and_parsed_then_the_schedule_is_the_same(name: str) -> None:
    for space in spaces(name):
        for vector in sample(space, 20, 3):
            schedule = space.sketch.fill(vector)
            assert parse_schedule(print_schedule(schedule)) == schedule
            assert space.sketch.fill(vector.copy()) == schedule


@pytest.mark.errors
@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{step = "spilt", axis = "_d0", factor = 4}', "spilt"),
        ('{step = "split", axis = "_d0"}', "factor"),
        ('{step = "split", axis = "_d0", factor = "4"}', "4"),
        ("{axis = 3}", "None"),
    ],
)
def test_schedule_text_when_a_person_errs_then_the_place_is_named(text: str, part: str) -> None:
    with pytest.raises(TextError) as caught:
        parse_schedule(text)
    assert part in caught.value.diagnostics()


@pytest.mark.errors
def test_fill_when_a_vector_does_not_fit_then_it_says_why() -> None:
    (space,) = spaces("product")
    with pytest.raises(ValueError, match="decisions of product"):
        space.sketch.fill([0])
    with pytest.raises(ValueError, match="has no choice 99"):
        space.sketch.fill([99] * len(space.sketch.decisions))


def test_sketch_text_when_printed_then_holes_and_choices_are_in_it() -> None:
    (space,) = spaces("product")
    text = space.sketch.text()
    assert "?columns" in text
    assert all(f"  {decision.name} in " in text for decision in space.sketch.decisions)
    assert text == spaces("product")[0].sketch.text()


@pytest.mark.parametrize("name", NAMES)
def test_derive_when_compared_with_every_neighbour_and_many_at_random_then_none_is_cheaper(name: str) -> None:
    """The default is the argmin: of whole spaces where they are small."""
    for machine in (AVX2, AVX512):
        for space in spaces(name, machine):
            best, cost = best_of(space)
            assert cost == float(space.score(best)[0])
            for block in space.rule.blocks(space.sketch):
                assert space.score(enumerate_block(space, best, block)).min() >= cost
            assert np.quantile(space.score(sample(space, 300, 5)), 0.05) >= cost * 0.98
            if space.sketch.size <= 4096:
                assert space.score(enumerate_all(space, 4096)).min() >= cost * 0.98


@pytest.mark.parametrize("name", NAMES)
def test_derived_when_asked_for_then_it_is_the_best_vector_of_the_cheapest_sketch(name: str) -> None:
    found = [(best_of(space)[1] * space.rule.margin, index) for index, space in enumerate(spaces(name))]
    _, index = min(found)
    space = spaces(name)[index]
    assert derived(setting_of(name), AVX2) == space.sketch.fill(best_of(space)[0][0])


@pytest.mark.parametrize("name", NAMES)
def test_features_when_batched_then_each_row_is_that_of_the_vector_alone(name: str) -> None:
    for space in spaces(name):
        vectors = sample(space, 40, 1)
        batch = space.features(vectors)
        assert list(batch) == list(FEATURES)
        alone = [space.features(vectors[i : i + 1]) for i in range(len(vectors))]
        for feature, column in batch.items():
            assert column.tobytes() == np.concatenate([row[feature] for row in alone]).tobytes(), feature
            assert np.isfinite(column).all(), feature
            assert (column >= 0).all(), feature


def test_features_when_a_product_is_known_then_counts_are_those_on_paper() -> None:
    """7 rows of 24 by 24 x 19: tiles of 5 rows and 2 registers of 8, beside tiles of one register for 3 columns."""
    (space,) = spaces("product")
    vector = space.sketch.vector({"tile_d0": 5, "columns": 16, "chunk": 8, "order": 0, "parallel": 0}).reshape(1, -1)
    found = {name: float(column[0]) for name, column in space.features(vector).items()}
    assert found["flops"] == 2 * 7 * 24 * 19
    assert found["tiles"] == 2 * 2
    assert found["multiply_adds"] == 2 * 5 * (2 + 1) * 24
    assert found["loads"] == 4 * (5 + 2) * 24
    assert found["turns"] == 4 * 3
    assert found["registers"] == 5 * 2 + 2 + 1
    assert found["waste"] == pytest.approx(10 * 24 / (7 * 19) - 1)


def test_rest_when_whole_tiles_leave_columns_then_the_last_tile_has_registers_for_these_alone() -> None:
    assert [rest_of(extent, 16, 16) for extent in (8, 16, 24, 25, 32, 40)] == [0, 0, 8, 0, 0, 8]
    assert [rest_of(extent, 48, 16) for extent in (47, 96, 100, 112, 121, 130)] == [0, 0, 8, 16, 32, 0]
    assert [rest_of(extent, 16, 8) for extent in (19, 24, 27, 31)] == [8, 8, 0, 0]
    assert rest_of(symbol("n"), 16, 16) == 0


def test_legal_when_all_steps_are_emitted_inside_the_loop_over_columns_then_few_elements_are_read() -> None:
    """14 rows times 24 steps are more vectors than registers, so that the loop over columns has to be outside."""
    (space,) = spaces("product", AVX512)
    values = {"tile_d0": 7, "columns": 16, "chunk": 24, "parallel": 0}
    orders = [space.sketch.vector({**values, "order": order}).reshape(1, -1) for order in (0, 1)]
    assert [bool(space.legal(vector)[0]) for vector in orders] == [
        False,
        False,
    ]  # of one tile of rows, nothing is outside
    values["tile_d0"] = 4
    orders = [space.sketch.vector({**values, "order": order}).reshape(1, -1) for order in (0, 1)]
    assert [bool(space.legal(vector)[0]) for vector in orders] == [True, False]


def test_derived_when_rows_of_a_tile_lie_in_one_set_of_the_cache_then_they_are_no_more_than_its_ways() -> None:
    """Pixels two apart with 512 channels are 4096 bytes apart, their rows 28 times that."""
    for machine in (AVX2, AVX512):
        factors = derived(setting_of("strided", machine), machine).factors()
        assert factors["_d1"] * factors["_d2"] <= machine.l1_bytes // 4096
        (space,) = spaces("strided", machine)
        (operand, _) = space.work.main
        assert dict(operand.apart)["_d1"] == 2 * 28 * 512 * 4
        assert dict(operand.apart)["_d2"] == 2 * 512 * 4


def test_score_when_a_thousand_candidates_are_given_then_each_takes_less_than_a_hundred_microseconds() -> None:
    """Time of the processor, not of the wall: neighbours on a shared machine do not count."""
    for name in ("convolution", "depthwise", "columns", "tapped", "bottleneck"):
        for space in spaces(name):
            vectors = sample(space, 1000, 0)
            space.score(vectors)
            start = time.process_time()
            space.score(vectors)
            assert (time.process_time() - start) / 1000 < 100e-6, (name, space.sketch.rule)


def test_schedule_when_overridden_with_block_then_the_sketch_schedule_is_inherited() -> None:
    setting = setting_of("product")
    base = derived(setting, AVX2)
    changed = base.with_block(_d0=2)
    assert changed.steps[: len(base.steps)] == base.steps
    assert changed.factors() == base.factors() | {"_d0": 2}
    (lowered,) = lower_task(setting, AVX2, lambda _setting, _machine: changed)
    assert lowered.schedule.factors()["_d0"] == 2


@pytest.mark.errors
def test_lower_task_when_a_schedule_of_another_task_is_given_then_it_is_rejected() -> None:
    foreign = Schedule((Split("_d7", 4),))
    with pytest.raises(ScheduleRejectedError) as caught:
        lower_task(setting_of("product"), AVX2, lambda _setting, _machine: foreign)
    assert "_d7" in caught.value.diagnostics()
