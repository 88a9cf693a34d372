"""Taps that Winograd's transforms keep: those of a third axis, those with steps, those that lie apart beside others."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.config import load_precision
from tessera_build.driver.inverted import turned_back
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Clip, Schedule, ScheduleRejectedError
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.estimate import operations_of
from tessera_build.lower.program.kernels import Chooser, Setting, derived
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.lower.schedule_to_tile.replay import Bindings, schedule_to_tile
from tessera_build.space.toom_cook import Transform, tiles_for
from tessera_build.space.winograd import window_of
from tessera_build.space.workload import Bounds
from tests.lower.compiled import check_module
from tests.lower.execution import AVX2, AVX512
from tests.lower.tasks import rewritten, summed
from tests.lower.volumes import Volume
from tests.lower.winograd_cases import Strips

# With the extents of what is kept.
_VOLUMES = {
    "a third axis": (Volume((4, 9, None), (3, 3, 3)), [3]),
    "a third axis in steps, apart": (Volume((9, 6, 7), (3, 3, 3), (2, 1, 1), (2, 1, 1)), [3]),
    "whole registers of channels": (Volume((3, 6, 7), (2, 3, 3), channels=32), [2]),
    "one axis of three": (Volume((5, 5, 6), (3, 3, 3), (1, 2, 2)), [3, 3]),
    "rows in steps": (Volume((9, 13), (3, 3), (2, 1)), [3]),
    "columns in steps": (Volume((9, None), (3, 3), (1, 2)), [3]),
    "both apart": (Volume((13, 15), (3, 3), (), (3, 2)), [3]),
    "both far apart": (Volume((12, None), (3, 3), (), (5, 4)), [3]),
    "rows apart": (Volume((13, 9), (3, 3), (), (2, 1)), [3]),
    "many taps": (Volume((9, 12), (7, 7)), [7]),
    "no points for both": (Volume((9, 12), (2, 3)), [2]),
}


@pytest.mark.unit
@pytest.mark.parametrize("name", _VOLUMES)
def test_window_when_not_all_taps_have_points_then_keeps_the_others(name: str) -> None:
    volume, kept = _VOLUMES[name]
    window = window_of(summed(volume.module())[1])
    assert window is not None
    assert [axis.extent for axis in window.further] == kept


@pytest.mark.numerics
@pytest.mark.parametrize("name", _VOLUMES)
@pytest.mark.parametrize("machine", [None, AVX2], ids=["here", "avx2"])
def test_taps_when_kept_then_agree_with_the_reference_for_one_and_two_threads(
    name: str, machine: CpuMachine | None
) -> None:
    volume, _ = _VOLUMES[name]
    module, (inputs, dims) = volume.module(), volume.inputs()
    window = window_of(summed(module)[1])
    assert window is not None
    for tile in tiles_for(window.taps):
        strips = Strips(tile, 2, 3, 5, vectors=1)
        check_module(module, inputs, dims, machine, strips.chooser())
        check_module(module, inputs, dims, machine, _clipped(strips))


def _clipped(strips: Strips) -> Chooser:
    """Strips that leave out turns over the first tap that is kept."""

    def choose(setting: Setting, machine: CpuMachine) -> Schedule:
        sums = [n for n in setting.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
        window = window_of(sums[0]) if len(sums) == 1 else None
        if window is None:
            return derived(setting, machine)
        return strips.schedule(sums[0], machine).with_steps(Clip(window.further[0].name))

    return choose


@pytest.mark.unit
def test_products_when_kept_taps_are_padding_then_are_left_out() -> None:
    module = Volume((2, 28, 28), (3, 3, 3), channels=64, outputs=64).module()
    strips = Strips(4, 1, 7, 7)
    operations = [
        sum(operations_of(r.tile_function, {"N": 1}) for r in lower_module(module, AVX512, choose=choose).launches[0])
        for choose in (strips.chooser(), _clipped(strips))
    ]
    assert operations[1] < 0.7 * operations[0]  # two of three taps of either frame lie inside


@pytest.mark.errors
def test_trace_when_turns_of_another_kept_tap_are_left_out_then_is_rejected() -> None:
    task, node = summed(_VOLUMES["one axis of three"][0].module())
    window = window_of(node)
    assert window is not None
    first, second = window.further
    schedule, constants = Strips(2, 1, 2, 2, vectors=1).schedule(node, AVX2), {1: (20, 19, 3, 3, 3)}
    schedule_to_tile(task, schedule.with_steps(Clip(first.name)), Bindings({}, constants, AVX2.lanes))
    with pytest.raises(ScheduleRejectedError) as caught:
        schedule_to_tile(task, schedule.with_steps(Clip(second.name)), Bindings({}, constants, AVX2.lanes))
    assert "left out" in str(caught.value.found)


@pytest.mark.unit
def test_rule_when_a_volume_is_large_then_takes_tiles_along_two_of_its_axes() -> None:
    module = Volume((8, 28, 28), (3, 3, 3), channels=64, outputs=64).module()
    step = rewritten(module, AVX512, Bounds(load_precision("fp32").winograd_max_error))
    assert step is not None
    assert (step.algorithm, step.tile) == ("winograd", 4)


@pytest.mark.unit
def test_weights_when_taps_are_kept_then_are_told_from_the_bundle() -> None:
    weights = np.random.default_rng(0).standard_normal((20, 7, 3, 3, 3)).astype(np.float32)
    packing = Packing((3, 4, 2, 1, 0), 0, 16, winograd=Transform.of(4, (3, 3)))
    packed = packing.apply(weights)
    assert packed.shape == (2, 36, 21, 16)
    found = turned_back(packed, packing, weights.shape)
    assert found is not None
    np.testing.assert_allclose(found.astype(np.float32), weights, atol=2e-5)
