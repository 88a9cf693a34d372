"""Whether a trace that changes the algorithm fits its task.

Takes a nest, a schedule with a `Rewrite` step and the constants; gives the definition that is rewritten and what the
algorithm wants to know of it, or raises `ScheduleRejectedError` with the reason. Invariant: nothing in a trace that
passes is without effect.
"""

from __future__ import annotations

from collections.abc import Container

from tessera_build.ir.core.types import int_extent
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.schedule.trace import Bind, Rewrite, Schedule, ScheduleRejectedError
from tessera_build.lower.schedule_to_tile.halves import Halves, axes_around, halves_of, strides_of
from tessera_build.lower.schedule_to_tile.nest import Nest
from tessera_build.space.strassen import HALVES, LEAST_ROWS, STRASSEN, product_of
from tessera_build.space.toom_cook import Transform, tiles_for
from tessera_build.space.winograd import WINOGRAD, Window, window_of
from tessera_build.space.winograd_plan import STACK_BYTES, points_pitch, scratch_bytes


def check_rewrite(nest: Nest, schedule: Schedule, step: Rewrite, constants: Container[int]) -> None:
    """Raise unless the step fits, whatever its algorithm."""
    if step.algorithm == STRASSEN:
        halved_product(nest, schedule, step, constants)
    else:
        rewritten_window(nest, schedule, step, constants)


def halved_product(nest: Nest, schedule: Schedule, step: Rewrite, constants: Container[int]) -> Halves:
    """The product that `step` cuts into halves."""
    sums = [n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    found = sums[0] if nest.task.kind == "contraction" and not schedule.groups() else None
    product = product_of(found, strides_of(nest, found.reads[0])) if found else None
    if product is None:
        raise _rejected(nest, "no product of f32 whose rows, beside the first axis, depth and columns can be halved")
    if sums[0].reads[1] not in constants:
        raise _rejected(nest, "weights that are not constant")
    if step.tile != HALVES or step.panels < 0:
        raise _rejected(nest, f"{step.tile} parts in groups of {step.panels} tiles of rows")
    halves = halves_of(nest, schedule, sums[0], product)
    _check_halves(nest, schedule, halves)
    return halves


def _check_halves(nest: Nest, schedule: Schedule, halves: Halves) -> None:
    """Whole registers in panels, whole panels, pieces and steps in halves, and a register tile that the rows fill."""
    (rows, depth, columns), vector, product = halves.extents, nest.axes[-1], halves.product
    if halves.width % nest.lanes or columns % halves.width or schedule.packs() != {1: halves.width}:
        raise _rejected(nest, f"panels of {schedule.packs()}, tiles of {halves.width} outputs of {columns}")
    whole = halves.piece > 0 and depth % halves.piece == 0 and halves.piece % halves.steps == 0
    if not whole or depth % nest.lanes or schedule.tensorised() != product.depth or schedule.instruction() != "fma":
        raise _rejected(nest, f"{halves.steps} steps of {schedule.tensorised()} in pieces of {halves.piece} of {depth}")
    divided = product.shares_a_row and halves.group < halves.tiles
    least = rows if isinstance(rows, int) else LEAST_ROWS
    if not 1 <= halves.block <= least or halves.group > halves.tiles or divided:
        raise _rejected(nest, f"tiles of {halves.block} rows of {rows}, {halves.group} in a group")
    others = schedule.factors().keys() - {product.rows, product.depth, vector}
    if any(schedule.factors()[axis] != 1 for axis in others):
        raise _rejected(nest, f"splits of {', '.join(sorted(others))}")
    around = (*axes_around(nest, halves), vector)
    binds = [step for step in schedule.steps if isinstance(step, Bind)]
    alone = schedule.order() in ((), (*around, *product.paired))
    if not alone or any(b.scope != "parallel" or b.axis not in around for b in binds):
        raise _rejected(nest, f"the order {schedule.order()} with {', '.join(f'{b.scope} {b.axis}' for b in binds)}")
    if halves.private_bytes > STACK_BYTES:
        raise _rejected(nest, f"{halves.private_bytes} bytes of scratch a panel, of {STACK_BYTES} that a stack has")


def rewritten_window(
    nest: Nest, schedule: Schedule, step: Rewrite, constants: Container[int]
) -> tuple[Compute, Window]:
    """The sum of products that `step` rewrites, with its window."""
    if step.algorithm != WINOGRAD:
        raise _rejected(nest, f"the algorithm {step.algorithm}")
    sums = [n for n in nest.task.function.nodes if isinstance(n, Compute) and n.combine != "none"]
    window = window_of(sums[0]) if nest.task.kind == "contraction" and not schedule.groups() else None
    if window is None:
        raise _rejected(
            nest,
            "no sum of products of f32 over two to seven taps, of which several meet the same inputs, and channels",
        )
    if step.tile not in tiles_for(window.taps, window.strides):
        raise _rejected(nest, f"tiles of {step.tile} for {window.taps[0]} by {window.taps[1]} taps")
    if sums[0].reads[1] not in constants:
        raise _rejected(nest, "weights that are not constant")
    if schedule.clipped() - {axis.name for axis in window.further[:1]}:
        raise _rejected(nest, f"turns of {', '.join(sorted(schedule.clipped()))} left out")
    _check_tiles(nest, schedule, step, window)
    _check_loops(nest, schedule, step)
    return sums[0], window


def _check_tiles(nest: Nest, schedule: Schedule, step: Rewrite, window: Window) -> None:
    """Strips of whole tiles, whole registers in panels, and a register tile that every strip can fill."""
    factors, vector = schedule.factors(), nest.axes[-1]
    transform = Transform.of(step.tile, window.taps, window.strides)
    rows, columns, width = (factors.get(axis, 1) for axis in (window.rows.axis, window.columns.axis, vector))
    if rows % transform.rows.tile or columns % transform.columns.tile:
        raise _rejected(nest, f"strips of {rows} by {columns} outputs in tiles of {step.tile}")
    tiles = rows // transform.rows.tile * (columns // transform.columns.tile)
    if width % nest.lanes or schedule.packs() != {1: width}:
        raise _rejected(nest, f"panels of {schedule.packs()}, tiles of {width} outputs")
    if schedule.tensorised() != window.channels.name or schedule.instruction() != "fma":
        raise _rejected(nest, f"products over {schedule.tensorised()} by {schedule.instruction()}")
    others = factors.keys() - {window.rows.axis, window.columns.axis, vector, window.channels.name}
    if any(factors[axis] != 1 for axis in others):
        raise _rejected(nest, f"splits of {', '.join(sorted(others))}")
    row = points_pitch(int_extent(window.channels.extent), window.kept, nest.lanes)
    scratch = scratch_bytes(transform, tiles, row, width, nest.lanes)
    if scratch > STACK_BYTES:
        raise _rejected(nest, f"{scratch} bytes of scratch a strip, of {STACK_BYTES} that a thread's stack has for it")
    panels = -(-int_extent(nest.domain[vector]) // width)
    if step.panels < 0 or (step.panels and panels % step.panels):
        raise _rejected(nest, f"groups of {step.panels} panels, of {panels}")
    if not 1 <= step.block <= tiles:
        raise _rejected(nest, f"blocks of {step.block} in strips of {rows} by {columns} outputs")


def _check_loops(nest: Nest, schedule: Schedule, step: Rewrite) -> None:
    """The loop over panels is innermost and serial, that over groups of them outermost; nothing else is unrolled."""
    order, vector = schedule.order() or nest.axes, nest.axes[-1]
    shared = order if step.panels else order[:-1]
    binds = [step for step in schedule.steps if isinstance(step, Bind)]
    if order[-1] != vector or any(b.scope != "parallel" or b.axis not in shared for b in binds):
        raise _rejected(nest, f"the order {order} with {', '.join(f'{b.scope} {b.axis}' for b in binds) or 'no binds'}")


def _rejected(nest: Nest, found: str) -> ScheduleRejectedError:
    return ScheduleRejectedError("SCHEDULE_REWRITE", f"the schedule does not fit {nest.task.name}", found=found)
