"""What code generation and cost formulas need to know of a CPU: data, not code.

Takes numbers from a target's description; gives `CpuMachine`. Invariant: two machines that are equal here get the
same programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tessera_build.ir.machine.costs import Costs


@dataclass(frozen=True, slots=True)
class CpuMachine:
    """`lanes` are 32-bit lanes of a vector register; rates are per cycle for full-width registers.

    `byte_products`: one instruction adds four products of bytes (unsigned by signed) to every lane, without saturation.
    `scales`: one instruction multiplies the lanes of a register by powers of two, rounding once. `asks_ahead`: what few
    rows read of a matrix comes sooner if it is asked for before; else it is left to what the machine fetches alone.
    `adds_apart`: additions of registers have units of their own, which idle while others multiply and add.
    """

    name: str
    lanes: int
    registers: int
    fused: bool
    l1_bytes: int = 32768
    l2_bytes: int = 1 << 20
    multiply_adds_per_cycle: float = 1.0
    loads_per_cycle: float = 1.0
    multiply_add_latency: int = 4
    byte_products: bool = False
    scales: bool = False
    asks_ahead: bool = True
    adds_apart: bool = False
    costs: Costs = field(default_factory=Costs)
