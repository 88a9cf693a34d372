"""What the analytic cost model charges for, in cycles: numbers of a machine, fitted to measurements.

Takes nothing; gives `Costs`. Invariant: data, not code; `python -m benchmarks.schedules --calibrate RECORDS` prints the
least-squares fit of these fields to records of schedules measured alone, and is where the defaults come from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles for one of each, beyond what the innermost steps take: see `space.features.FEATURES` for what they are.

    `l1_byte`, `l2_byte`: for a byte brought into that level, where arithmetic does not hide it; `scattered_byte`: more
    for one that nothing fetches ahead; `weight_byte`: more for one of a constant, which a model does not find in a
    cache, whatever a task measured alone does. `idle`: the share of the time that waiting workers add; a choice, not a
    measurement: on one core it is nothing.
    """

    other: float = 1.0
    spill: float = 0.5
    gather: float = 1.5
    tile: float = 30.0
    turn: float = 2.0
    call: float = 60.0  # 42 on one thread (224 rows of an image transposed), more where others ask for theirs too
    l1_byte: float = 0.25 / 64
    l2_byte: float = 2.0 / 64
    scattered_byte: float = 0.35
    weight_byte: float = 2.0 / 64  # ResNet-50's 3x3, 256 channels: of 9.4 MB, 0.08 ms in a model beyond those alone
    idle: float = 0.05
