"""A target's description, and a precision policy, in the words of the rooms that make code for them.

Takes: a `TargetConfig`; a `PrecisionConfig`.
Gives: `CpuMachine` for lowering, `TargetOptions` for the back end; `Bounds` for the rules that choose algorithms.
Invariant: two targets that differ in name only get the same machine code.
"""

from tessera_build.backends.interface import TargetOptions
from tessera_build.config import PrecisionConfig, TargetConfig
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.workload import Bounds

_LANE_BITS = 32


def machine_of(target: TargetConfig) -> CpuMachine:
    """What lowering and cost formulas need to know."""
    return CpuMachine(
        name=target.llvm_cpu,
        lanes=target.vector_bits // _LANE_BITS,
        registers=target.vector_registers,
        fused=target.prefer_fma,
        l1_bytes=target.cache_bytes.l1,
        l2_bytes=target.cache_bytes.l2,
        multiply_adds_per_cycle=target.per_cycle.multiply_adds,
        loads_per_cycle=target.per_cycle.loads,
        multiply_add_latency=target.per_cycle.latency,
        byte_products=_has_byte_products(target),
        scales={"avx512f", "avx512vl"} <= set(target.features),
        asks_ahead=target.asks_ahead,
        adds_apart=target.adds_apart,
    )


def _has_byte_products(target: TargetConfig) -> bool:
    """VNNI in registers of the target's width: AVX-VNNI has them up to 256 bits."""
    narrow = target.vector_bits <= 256 and "avx_vnni" in target.features
    return narrow or "avx512_vnni" in target.features


def bounds_of(policy: PrecisionConfig) -> Bounds:
    """What other algorithms may err by."""
    return Bounds(policy.winograd_max_error, policy.products_max_error)


def options_of(target: TargetConfig, tools: tuple[tuple[str, str], ...]) -> TargetOptions:
    """What the back end compiles for, and with which tools."""
    return TargetOptions(target.triple, target.llvm_cpu, target.llvm_features, tools=tools)
