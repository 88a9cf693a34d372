"""The machines that the four programs run on here: AVX-512 natively, and groups of lanes as SPIR-V.

Takes a `Program`; gives its output. Invariant: both start from the same unbound function and differ in binding only.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.linker.link import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, compile_ir, native_options
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.core.node import Function
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.machine.group import SPIRV
from tessera_build.lower.program.bind import bind_outer_loops
from tessera_build.lower.tile_to_target.bind_group import BindGroup
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tessera_build.lower.tile_to_target.simt import lower_group
from tests.neutrality.programs import Program
from tests.spirv.opencl import run_group_kernel

Array = NDArray[np.float32]
AVX_512 = CpuMachine("x86-64-v4", lanes=16, registers=32, fused=True)


def bind_for_groups(function: Function) -> Function:
    return BindGroup(SPIRV).run(function)


BINDINGS = {"x86-64-v4": bind_outer_loops, "spirv": bind_for_groups}


def run_as_spirv(program: Program) -> Array:
    buffers = program.buffers()
    run_group_kernel(lower_group(bind_for_groups(program.function), SPIRV.lanes), buffers, program.dims)
    return buffers[-1]


def run_natively(program: Program, folder: Path) -> Array:
    """On this processor, as code for x86-64-v4; skips where the processor is older."""
    if "+avx512vl" not in native_options().features:
        pytest.skip("this processor has no AVX-512")
    machine = CodegenOptions("x86_64-unknown-linux-gnu", "x86-64-v4")
    lowered = lower_cpu(bind_outer_loops(program.function), AVX_512, dict.fromkeys(program.dims, (1, None)))
    objects = [compile_ir(kernel_ir(lowered.kernel, machine, "kernel"), machine), compile_ir(MEMORY_IR, machine)]
    path = folder / "kernel.so"
    path.write_bytes(link(objects, ["kernel"], "kernel.so"))
    entry = ctypes.CDLL(str(path)).kernel
    entry.restype, entry.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int64]
    buffers = program.buffers()
    names = lowered.kernel.attributes["dims"]
    assert isinstance(names, tuple)
    slots = np.array([*(b.ctypes.data for b in buffers), *(program.dims[str(n)] for n in names)], np.int64)
    for index in range(evaluate(lowered.parallel_count, program.dims)):
        assert entry(slots.ctypes.data, index) == 0
    return buffers[-1]
