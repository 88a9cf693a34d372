"""The bf16 product as both NVIDIA targets bind it.

Takes extents; gives the bound function and its lowered kernel. Invariant: one unbound function for both machines, but
for the step of k, which is a number of its schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import BF16
from tessera_build.ir.machine.group import SM_80, SM_90, GroupMachine
from tessera_build.kernels.product import ProductSchedule, product
from tessera_build.lower.tile_to_target.bind_group import BindGroup
from tessera_build.lower.tile_to_target.bind_matrix import BindMatrix
from tessera_build.lower.tile_to_target.simt import GroupKernel, lower_group


@dataclass(frozen=True, slots=True)
class Target:
    """A machine, LLVM's and ptxas's name of it, the step of k, and the instruction that its SASS must hold."""

    machine: GroupMachine
    processor: str
    step: int
    instruction: str


TARGETS = {
    "sm_80": Target(SM_80, "sm_80", 32, "HMMA"),
    "sm_90": Target(SM_90, "sm_90a", 64, "HGMMA"),
}


def unbound(target: Target, columns: int, depth: int, rows: Extent | None = None) -> Function:
    extents = (symbol("m") if rows is None else rows, columns, depth)
    return product(BF16, extents, ProductSchedule(128, 128, target.step, "hw"))


def bound(target: Target, function: Function) -> Function:
    return BindMatrix(target.machine).run(BindGroup(target.machine).run(function))


def lowered(target: Target, columns: int = 512, depth: int = 1024) -> GroupKernel:
    return lower_group(bound(target, unbound(target, columns, depth)), target.machine.lanes)
