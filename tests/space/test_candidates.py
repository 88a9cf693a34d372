"""Candidates drawn from sketches, compiled and run: whatever algorithm and blocks, the answer is the model's."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.lower.program.kernels import Setting, derived, subject_of
from tessera_build.space.derive import spaces_of
from tessera_build.space.sample import sample
from tests.lower.compiled import check_module, compile_module
from tests.lower.execution import AVX2
from tests.lower.winograd_cases import inputs_of
from tests.space.tasks import module_of, spaces

_SIZES = {"N": 9}
_DRAWN = 4
RULES = [
    ("batched", "product"),
    ("convolution", "product"),
    ("tapped", "product"),
    ("tapped", "winograd"),
    ("bottleneck", "chain"),
    ("pool", "window"),
]


class _Drawn:
    """Takes the schedule of the task whose sketches the rule is among from a vector of that rule."""

    def __init__(self, rule: str, seed: int) -> None:
        self.rule, self.seed, self.found = rule, seed, 0

    def __call__(self, setting: Setting, machine: CpuMachine) -> Schedule:
        for space in spaces_of(subject_of(setting), machine):
            if space.rule.name == self.rule:
                self.found += 1
                return space.sketch.fill(sample(space, 1, self.seed)[0])
        return derived(setting, machine)


@pytest.mark.numerics
@pytest.mark.parametrize("seed", range(_DRAWN))
@pytest.mark.parametrize(("name", "rule"), RULES)
def test_candidate_when_drawn_from_a_sketch_then_the_answer_is_that_of_the_model(
    name: str, rule: str, seed: int
) -> None:
    module, choose = module_of(name), _Drawn(rule, seed)
    check_module(module, inputs_of(module, _SIZES), _SIZES, AVX2, choose)
    assert choose.found


@pytest.mark.numerics
def test_candidates_when_drawn_for_a_chain_then_bits_are_those_of_any_other() -> None:
    module = module_of("bottleneck")
    inputs = inputs_of(module, {})
    found = [compile_module(module, AVX2, _Drawn("chain", seed)).run(inputs, {})["y"] for seed in range(_DRAWN)]
    assert np.isfinite(found[0]).all()
    assert len({array.tobytes() for array in found}) == 1


@pytest.mark.unit
def test_product_when_groups_have_weights_of_their_own_then_their_loop_may_be_the_outermost() -> None:
    """Else every tile of rows reads the weights of all groups again, which a cache may not hold."""
    (space,) = [s for s in spaces("convolution") if s.rule.name == "product"]
    vectors = sample(space, 200, 0)
    orders = {space.sketch.fill(vector).order() for vector in vectors}
    assert ("_d3g", "_d3i", "_d0", "_d1", "_d2") in orders
    assert ("_d0", "_d1", "_d2", "_d3g", "_d3i") in orders
