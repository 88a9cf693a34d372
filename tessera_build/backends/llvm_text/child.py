"""A process of its own for one module, for LLVM's targets that a long-lived process cannot trust.

Takes the name of a worker module, its arguments and LLVM IR text; gives the bytes it wrote. Invariant: the worker
starts from nothing, so its output depends on its input alone, and an error that ends it ends nobody else.

Both matter. LLVM ends the process on errors of its GPU targets; and its SPIR-V target, asked several times in one
process, gave different modules for one input in 1 to 15 of 100 cases, some of which crashed the consumer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tessera_build.backends.llvm_text.errors import CompileError

_TIMEOUT_S: Final = 120
_ROOT: Final = Path(__file__).resolve().parents[3]


def run_worker(worker: str, arguments: Sequence[str], ir_text: str, where: str) -> bytes:
    """What `python -m worker arguments` writes when it reads `ir_text`; raises `CompileError`, naming `where`."""
    command = [sys.executable, "-m", worker, *arguments]
    done = subprocess.run(
        command, input=ir_text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False, cwd=_ROOT
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise CompileError("LLVM refuses the kernel", where=where, found=lines[-1] if lines else "no message")
    return done.stdout
