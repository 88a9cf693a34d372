"""The analytic cost model: cycles of a candidate on one core, from its features and the machine.

Takes features of a batch and a machine; gives one number of cycles each. A roofline with cache levels: the innermost
steps by the slowest of their units, what surrounds them in instructions, and bytes by level, which overlap with
arithmetic in part. Invariant: plain sums in a fixed order, no BLAS: the same bits on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.features import Features

Floats = npt.NDArray[np.float64]


def cycles(features: Features, machine: CpuMachine) -> Floats:
    """Estimated cycles of the whole task on one core, and a share of what the workers of several would wait."""
    rates = machine.costs
    core = features["busy"] + features["others"] * rates.other
    core = core + features["spills"] * rates.spill + features["gathers"] * rates.gather
    core = core + features["tiles"] * rates.tile + features["turns"] * rates.turn + features["calls"] * rates.call
    moved = features["l1_bytes"] * rates.l1_byte + features["l2_bytes"] * rates.l2_byte
    moved = moved + features["scattered_bytes"] * rates.scattered_byte
    return (core + moved) * (1.0 + rates.idle * features["idle"]) + features["weight_bytes"] * rates.weight_byte
