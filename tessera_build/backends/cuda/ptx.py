"""One group kernel of Target IR as PTX, and as a cubin.

Takes a kernel and a processor (`sm_80`, `sm_90a`); gives PTX text, and with ptxas from the extra [ptxas] a cubin.
Invariant: bytes depend on the kernel, the processor and the tools' versions only; names are checked before LLVM sees
them, because it ignores an unknown one or ends the process.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tessera_build.backends.cuda.dialect import CudaDialect
from tessera_build.backends.llvm_text.child import run_worker
from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.backends.llvm_text.group_text import GroupText
from tessera_build.ir.core.node import Function

# The PTX version that each processor's code is written in: the oldest that has its instructions.
PTX_VERSIONS: Final = {"sm_80": 70, "sm_90a": 80}
_WORKER: Final = "tessera_build.backends.cuda.worker"
_TIMEOUT_S: Final = 120


def cuda_ir(kernel: Function) -> str:
    """The kernel as LLVM IR text."""
    return GroupText(CudaDialect()).module(kernel)


def compile_ptx(kernel: Function, processor: str) -> str:
    """The kernel as PTX; raises `CompileError` for an unknown processor and for what LLVM refuses."""
    if processor not in PTX_VERSIONS:
        raise CompileError("unknown processor", expected=", ".join(PTX_VERSIONS), found=processor)
    arguments = (processor, f"+ptx{PTX_VERSIONS[processor]}")
    return run_worker(_WORKER, arguments, cuda_ir(kernel), kernel.name).decode()


def find_ptxas() -> Path | None:
    """NVIDIA's assembler from the wheel `nvidia-cuda-nvcc-cu12`, if it is installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvcc")
    except ModuleNotFoundError:
        return None
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        path = Path(folder) / "bin" / "ptxas"
        if path.exists():
            return path
    return None


def assemble_cubin(ptx: str, processor: str) -> bytes:
    """The cubin of a PTX module; raises `CompileError` without ptxas, and for what it refuses."""
    ptxas = find_ptxas()
    if ptxas is None:
        raise CompileError("there is no ptxas here", hint="pip install 'tessera-build[ptxas]'")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [str(ptxas), f"-arch={processor}", "--warn-on-spills", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode or not target.exists():
            raise CompileError("ptxas refuses the PTX", found=_last_line(done.stderr or done.stdout))
        return target.read_bytes()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
