"""One group kernel of Target IR as a SPIR-V module.

Takes a kernel; gives LLVM IR text (`spirv_ir`) and the binary (`compile_spirv`). Invariant: the bytes depend on the
kernel and LLVM's version only; products and sums are never contracted beyond what the kernel says.
"""

from __future__ import annotations

from typing import Final

from tessera_build.backends.llvm_text.child import run_worker
from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.backends.llvm_text.group_text import SHARED, GroupText
from tessera_build.backends.llvm_text.types import memory_element
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.target.group import SharedAlloc

TRIPLE: Final = "spirv64v1.2-unknown-unknown"
_WORKER: Final = "tessera_build.backends.spirv.worker"
MAGIC: Final = bytes.fromhex("03022307")
# Memory fences of OpenCL's barrier: CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE.
_FENCES: Final = 3


class OpenClDialect:
    """Built-in functions of OpenCL C by their mangled names, which LLVM's SPIR-V target turns into instructions."""

    triple = TRIPLE
    convention = "spir_kernel"

    def group_index(self, text: GroupText) -> str:
        """get_group_id(0)."""
        return self._index(text, "_Z12get_group_idj")

    def lane(self, text: GroupText) -> str:
        """get_local_id(0)."""
        return self._index(text, "_Z12get_local_idj")

    def _index(self, text: GroupText, function: str) -> str:
        out = text.text.out
        out.declare(f"declare spir_func i64 @{function}(i32)")
        return out.temporary(f"call spir_func i64 @{function}(i32 0)")

    def barrier(self, text: GroupText) -> None:
        """barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)."""
        text.text.out.declare("declare spir_func void @_Z7barrierj(i32) convergent nounwind")
        text.text.out.line(f"call spir_func void @_Z7barrierj(i32 {_FENCES}) convergent nounwind")

    def shared(self, text: GroupText, node: SharedAlloc) -> str:
        """A variable of its own for each allocation."""
        name = f"@shared{len(text.globals)}"
        array = f"[{node.elements} x {memory_element(text.text.types[node.result].dtype)}]"
        text.globals.append(f"{name} = internal addrspace({SHARED}) global {array} poison, align 128\n")
        return name

    def write(self, text: GroupText, node: Node) -> bool:
        """OpenCL has no nodes of its own."""
        del text, node
        return False

    def attributes(self, text: GroupText, lanes: int) -> str:
        """The size of a group, which the launch must match."""
        return f"nounwind !reqd_work_group_size {text.text.out.shared_metadata(f'!{{i32 {lanes}, i32 1, i32 1}}')}"


def spirv_ir(kernel: Function) -> str:
    """The kernel as LLVM IR text."""
    return GroupText(OpenClDialect()).module(kernel)


def compile_spirv(kernel: Function) -> bytes:
    """The kernel as a SPIR-V binary; raises `CompileError` on what LLVM refuses."""
    code = run_worker(_WORKER, (TRIPLE,), spirv_ir(kernel), kernel.name)
    if not code.startswith(MAGIC):
        raise CompileError("LLVM gave no SPIR-V module", where=kernel.name, found=code[:4].hex())
    return code
