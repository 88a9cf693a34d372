"""What NVIDIA's machines have beyond the common text of group kernels: copies, matrix instructions, barriers.

Takes nodes of `ir.target.group`; gives calls of LLVM's NVVM intrinsics, and inline assembly for wgmma, which has none.
Invariant: every intrinsic named here exists in LLVM 22; a wrong name would end the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tessera_build.backends.llvm_text.group_text import SHARED, GroupText
from tessera_build.backends.llvm_text.types import Value
from tessera_build.ir.core.node import Node
from tessera_build.ir.target.group import (
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    MatrixLoad,
    MatrixMultiply,
    MatrixWait,
    SharedAlloc,
    SharedFence,
    SharedMatrix,
    WarpgroupFence,
    WarpgroupMultiply,
    shared_offsets,
)

TRIPLE: Final = "nvptx64-nvidia-cuda"
_SPECIAL: Final = "llvm.nvvm.read.ptx.sreg"
_MULTIPLY: Final = {"mma.m16n8k16.bf16": "llvm.nvvm.mma.m16n8k16.row.col.bf16"}
_WARPGROUP: Final = {"wgmma.m64n128k16.bf16": "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16"}


class CudaDialect:
    """PTX through LLVM."""

    triple = TRIPLE
    convention = "ptx_kernel"

    def group_index(self, text: GroupText) -> str:
        """%ctaid.x."""
        return self._special(text, "ctaid.x")

    def lane(self, text: GroupText) -> str:
        """%tid.x."""
        return self._special(text, "tid.x")

    def _special(self, text: GroupText, name: str) -> str:
        out = text.text.out
        narrow = out.temporary(out.intrinsic(f"{_SPECIAL}.{name}", "i32", (), ()))
        return out.temporary(f"zext i32 {narrow} to i64")

    def barrier(self, text: GroupText) -> None:
        """bar.sync 0, which orders shared and global memory for the group."""
        _call(text, "llvm.nvvm.barrier.cta.sync.aligned.all", ("i32 0",))

    def shared(self, text: GroupText, node: SharedAlloc) -> str:
        """A part of the block whose size the launch states: static allocations end at 48 KB."""
        if not text.globals:
            text.globals.append(f"@shared = external addrspace({SHARED}) global [0 x i8], align 1024\n")
        offset = shared_offsets(text.function)[0][node.result]
        return f"getelementptr (i8, ptr addrspace({SHARED}) @shared, i64 {offset})"

    def attributes(self, text: GroupText, lanes: int) -> str:
        """The number of lanes, by which ptxas divides the registers."""
        del text
        return f'nounwind "nvvm.maxntid"="{lanes},1,1"'

    def write(self, text: GroupText, node: Node) -> bool:
        """Write a node of NVIDIA's."""
        match node:
            case AsyncCopy():
                _async_copy(text, node)
            case AsyncCommit():
                _call(text, "llvm.nvvm.cp.async.commit.group", ())
            case AsyncWait():
                _call(text, "llvm.nvvm.cp.async.wait.group", (f"i32 {node.pending}",))
            case MatrixLoad():
                _matrix_load(text, node)
            case MatrixMultiply():
                _matrix_multiply(text, node)
            case SharedFence():
                text.text.out.line('call void asm sideeffect "fence.proxy.async.shared::cta;", "~{memory}"()')
            case WarpgroupFence():
                _call(text, "llvm.nvvm.wgmma.fence.sync.aligned", ())
            case SharedMatrix():
                text.text.values[node.result] = _descriptor(text, node)
            case WarpgroupMultiply():
                _warpgroup_multiply(text, node)
            case MatrixWait():
                _call(text, "llvm.nvvm.wgmma.commit_group.sync.aligned", ())
                _call(text, "llvm.nvvm.wgmma.wait_group.sync.aligned", (f"i64 {node.pending}",))
            case _:
                return False
        return True


def _call(text: GroupText, name: str, arguments: tuple[str, ...]) -> None:
    """A call without a result; constants given to `wait` intrinsics must be immediate."""
    types = tuple(argument.rpartition(" ")[0] for argument in arguments)
    text.text.out.line(text.text.out.intrinsic(name, "void", types, arguments))


def _async_copy(text: GroupText, node: AsyncCopy) -> None:
    """cp.async of 16 bytes past L1; with a mask, of as many bytes as it allows, the rest zeros."""
    target = text.address(node.target, node.target_index)
    source = text.address(node.source, node.source_index)
    count = f"i32 {node.count}"
    if node.mask is not None:
        count = f"i32 {text.text.out.temporary(f'select {text.text.values[node.mask].typed}, i32 {node.count}, i32 0')}"
    _call(text, f"llvm.nvvm.cp.async.cg.shared.global.{node.count}.s", (target, source, count))


def _matrix_load(text: GroupText, node: MatrixLoad) -> None:
    """ldmatrix of one, two or four matrices."""
    out, count = text.text.out, len(node.results)
    address = text.address(node.pointer, node.index)
    transposed = ".trans" if node.transposed else ""
    kind = f"{{ {', '.join(['i32'] * count)} }}"
    name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x{count}{transposed}.b16.p3"
    _unpack(text, kind, out.temporary(out.intrinsic(name, kind, ("ptr addrspace(3)",), (address,))), node.results)


def _matrix_multiply(text: GroupText, node: MatrixMultiply) -> None:
    """mma.sync; operands in the order a, b, acc."""
    out = text.text.out
    operands = [text.text.values[v] for v in (*node.a, *node.b, *node.acc)]
    kind = f"{{ {', '.join(['float'] * len(node.results))} }}"
    types = (*(["i32"] * (len(node.a) + len(node.b))), *(["float"] * len(node.acc)))
    call = out.intrinsic(_MULTIPLY[node.instruction], kind, types, tuple(o.typed for o in operands))
    _unpack(text, kind, out.temporary(call), node.results)


def _unpack(text: GroupText, kind: str, value: str, results: Sequence[int]) -> None:
    for position, result in enumerate(results):
        register = text.text.out.temporary(f"extractvalue {kind} {value}, {position}")
        text.text.values[result] = Value(register, text.text.types[result])


def _descriptor(text: GroupText, node: SharedMatrix) -> Value:
    """The matrix descriptor: address, leading and stride offsets, each in units of 16 bytes; no swizzle."""
    out = text.text.out
    address = text.address(node.pointer, node.index)
    shared = out.temporary(f"ptrtoint {address} to i32")
    units = out.temporary(f"lshr i32 {shared}, 4")
    low = out.temporary(f"zext i32 {out.temporary(f'and i32 {units}, 16383')} to i64")
    offsets = (node.leading >> 4) << 16 | (node.stride >> 4) << 32
    return out.instruction(f"or i64 {low}, {offsets}", text.text.types[node.result])


def _warpgroup_multiply(text: GroupText, node: WarpgroupMultiply) -> None:
    """wgmma.mma_async as inline assembly: accumulators tied to results, then two descriptors."""
    out, count = text.text.out, len(node.results)
    registers = ", ".join(f"${i}" for i in range(count))
    flags = ", ".join(str(int(flag)) for flag in node.transposed)
    code = f"{_WARPGROUP[node.instruction]} {{{registers}}}, ${count}, ${count + 1}, 1, 1, 1, {flags};"
    constraints = ",".join([*["=f"] * count, "l", "l", *(str(i) for i in range(count))])
    kind = f"{{ {', '.join(['float'] * count)} }}"
    operands = [text.text.values[v].typed for v in (node.a, node.b, *node.acc)]
    call = f'call {kind} asm sideeffect "{code}", "{constraints}"({", ".join(operands)})'
    _unpack(text, kind, out.temporary(call), node.results)
