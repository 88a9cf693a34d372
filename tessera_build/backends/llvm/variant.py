"""A CPU variant: its kernels, host program, thread pool and memory functions compiled and linked to a shared object.

Takes a `Variant` of Target IR and `CodegenOptions`; gives the object's bytes. Invariant: kernels are named by the
digest of their text, so equal ones exist once and the bytes do not depend on what the lowering called them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tessera_build.backends.interface import BuiltVariant, TargetOptions, UnitRecord, Work
from tessera_build.backends.llvm.cache import ObjectCache
from tessera_build.backends.llvm.compile_pool import CompiledUnits, Progress, Unit, compile_all
from tessera_build.backends.llvm.emit_host import HOST_EXPORTS, check_variant, host_ir
from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.half import HALF_IR
from tessera_build.backends.llvm.linker.link import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, assembly, llvm_version
from tessera_build.backends.llvm.pool import POOL_EXPORTS, pool_ir
from tessera_build.ir.core.node import Function
from tessera_build.ir.target.host import Variant

SONAME = "libtessera_model.so"
_NEUTRAL = "kernel"


def build_cpu_variant(
    variant: Variant,
    options: CodegenOptions,
    workers: int | None = None,
    cache: ObjectCache | None = None,
    progress: Progress | None = None,
) -> BuiltVariant:
    """Emit, compile in parallel and link. Raises `CompileError` with every unit that failed, or `LinkError`."""
    check_variant(variant)
    units: dict[str, Unit] = {}
    symbols: dict[str, str] = {}
    printed: dict[int, str] = {}  # by identity of the nodes, which equal kernels may share
    for kernel in variant.kernels:
        if id(kernel.nodes) not in printed:
            symbol, text = _named_by_content(kernel_ir(kernel, options, _NEUTRAL))
            printed[id(kernel.nodes)] = symbol
            units.setdefault(symbol, Unit(kernel.name, text))
        symbols[kernel.name] = printed[id(kernel.nodes)]
    fixed = (
        Unit("host program", host_ir(variant, symbols, options)),
        Unit("thread pool", pool_ir(options.architecture)),
        Unit("memory functions", MEMORY_IR),
        *((Unit("f16 functions", HALF_IR),) if any(" half" in unit.ir_text for unit in units.values()) else ()),
    )
    # By symbol: the order in which the lowering lists its kernels is not a reason for other bytes.
    ordered = [units[symbol] for symbol in sorted(units)]
    compiled = compile_all([*ordered, *fixed], options, workers, cache, progress)
    code = link(compiled.objects, (*HOST_EXPORTS, *POOL_EXPORTS), SONAME)
    return BuiltVariant(code, tuple(sorted(symbols.items())), _records(compiled))


def _named_by_content(text: str) -> tuple[str, str]:
    """`k_` and 16 digits of the digest of a kernel's text under the neutral name, and the text under this one."""
    symbol = f"k_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return symbol, text.replace(f"@{_NEUTRAL}(", f"@{symbol}(")


def _records(compiled: CompiledUnits) -> tuple[UnitRecord, ...]:
    return tuple(UnitRecord(s.name, s.source, s.seconds, s.object_bytes) for s in compiled.statistics)


def codegen_options(options: TargetOptions) -> CodegenOptions:
    """This room's form of a target's options."""
    return CodegenOptions(options.triple, options.processor, options.features, options.optimization)


@dataclass(frozen=True, slots=True)
class LlvmBackend:
    """The `Backend` of CPU targets."""

    @property
    def name(self) -> str:
        """The room's name."""
        return "llvm"

    def tools(self) -> tuple[tuple[str, str], ...]:
        """LLVM's and llvmlite's versions."""
        return (("llvm", llvm_version()),)

    def build(self, variant: Variant, options: TargetOptions, work: Work) -> BuiltVariant:
        """The shared object of a variant."""
        cache = ObjectCache(work.cache) if work.cache else None
        return build_cpu_variant(variant, codegen_options(options), work.workers, cache, work.progress)

    def assembly(self, kernel: Function, options: TargetOptions) -> str:
        """One kernel's assembly."""
        machine = codegen_options(options)
        return assembly(kernel_ir(kernel, machine), machine)
