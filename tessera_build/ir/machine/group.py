"""Machines of groups: lanes that share a memory and wait for each other, many groups a launch.

Takes nothing; gives `GroupMachine` records by target name. Invariant: data, not code — what two machines share in
these fields, binding and lowering treat alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.machine.instructions import LANE_FMA, MMA_BF16, WGMMA_BF16, Instruction


@dataclass(frozen=True, slots=True)
class GroupMachine:
    """`lanes` of a group by default; `instructions` in order of preference; memory in bytes; copies in flight."""

    name: str
    family: str
    lanes: int
    shared_bytes: int
    instructions: tuple[Instruction, ...]
    async_stages: int = 0


SPIRV = GroupMachine("spirv", "spirv", lanes=64, shared_bytes=32 << 10, instructions=(LANE_FMA,))
SM_80 = GroupMachine(
    "sm_80", "nvidia", lanes=128, shared_bytes=163 << 10, instructions=(MMA_BF16, LANE_FMA), async_stages=3
)
SM_90 = GroupMachine(
    "sm_90", "nvidia", lanes=128, shared_bytes=227 << 10, instructions=(WGMMA_BF16, MMA_BF16, LANE_FMA), async_stages=3
)
GROUP_MACHINES: dict[str, GroupMachine] = {m.name: m for m in (SPIRV, SM_80, SM_90)}
