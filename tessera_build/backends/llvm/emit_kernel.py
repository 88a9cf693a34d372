"""One kernel of Target IR as LLVM IR text.

Takes a `Function` of the kernel grammar (arguments: buffers, i64 dims, the i64 index of the parallel iteration) and
the name to export; gives a module whose `i32 @name(ptr arguments, i64 index)` reads the buffers' addresses and the
dims from an array of 8-byte slots. Invariant: the text depends on the function's structure only, not on its value
numbers. Within one launch, a buffer that the kernel writes must not overlap another one.
"""

from __future__ import annotations

from tessera_build.backends.llvm.emit_memory import (
    emit_alloca,
    emit_gather,
    emit_load,
    emit_prefetch,
    emit_scatter,
    emit_store,
)
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm_text.kernel_text import KernelText
from tessera_build.backends.llvm_text.types import Value, constant, register_type
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.types import I32, scalar
from tessera_build.ir.target.kernel import Alloca, Check, Gather, Load, Prefetch, Scatter, Store

# Loop idioms would otherwise become calls of memcpy and memset, slower than the vectors that the schedule chose.
_ATTRIBUTES = 'nounwind "no-builtins" "frame-pointer"="none"'


def kernel_ir(function: Function, options: CodegenOptions, name: str | None = None) -> str:
    """The module of one kernel; its symbol is `name`, or else the function's own name."""
    symbol = name or function.name
    writer = KernelText(function.types, _CpuText())
    parameters = _parameters(writer, function)
    writer.block(function.nodes)
    writer.out.line("ret i32 0")
    width = ' "prefer-vector-width"="512"' if options.architecture == "x86_64" else ""
    out = writer.out
    return (
        f'target triple = "{options.triple}"\n'
        f"define internal i32 @body({', '.join(parameters)}) noinline #0 {{\n{out.body()}\n}}\n"
        f"{_entry_point(symbol, function)}"
        f"{out.declarations()}"
        f"attributes #0 = {{ {_ATTRIBUTES}{width} }}\n"
        f"{out.metadata()}"
    )


def _entry_point(symbol: str, function: Function) -> str:
    """The exported function: loads the arguments and calls the body, whose `noalias` parameters LLVM can rely on."""
    lines: list[str] = []
    arguments: list[str] = []
    for position, argument in enumerate(function.args[:-1]):
        kind = register_type(function.types[argument])
        lines.append(f"  %p{position} = getelementptr i64, ptr %arguments, i64 {position}")
        lines.append(f"  %a{position} = load {kind}, ptr %p{position}, align 8")
        arguments.append(f"{kind} %a{position}")
    call = f"  %status = call i32 @body({', '.join([*arguments, 'i64 %index'])})"
    body = "\n".join([*lines, call, "  ret i32 %status"])
    return f"define i32 @{symbol}(ptr readonly %arguments, i64 %index) #0 {{\n{body}\n}}\n"


class _CpuText:
    """Memory of one address space, masked vectors, and checks that leave the kernel."""

    def write(self, text: KernelText, node: Node) -> bool:
        """Write the nodes that CPU kernels have beyond the common structure."""
        out, values = text.out, text.values
        match node:
            case Check():
                _write_check(text, node)
            case Store():
                emit_store(out, values, node)
            case Scatter():
                emit_scatter(out, values, node)
            case Prefetch():
                emit_prefetch(out, values, node)
            case Load():
                values[node.result] = emit_load(out, values, node, text.types[node.result])
            case Gather():
                values[node.result] = emit_gather(out, values, node, text.types[node.result])
            case Alloca():
                values[node.result] = emit_alloca(out, node, text.types[node.result])
            case _:
                return False
        return True


def _parameters(text: KernelText, function: Function) -> list[str]:
    """Bind the function's arguments; gives the parameter list of the body."""
    texts: list[str] = []
    for argument in function.args:
        value = Value(text.out.name(), text.types[argument])
        text.values[argument] = value
        texts.append(f"ptr noalias {value.text}" if value.type.container == "memref" else value.typed)
    return texts


def _write_check(text: KernelText, node: Check) -> None:
    """Leave the kernel with the code unless the condition holds; marked as unlikely."""
    out = text.out
    good = out.label("good")
    code = constant(scalar(I32), node.code)
    failed = out.tail(f"failed{node.code}", f"ret {code.typed}")
    weights = out.shared_metadata('!{!"branch_weights", i32 1048576, i32 1}')
    condition = text.values[node.condition].typed
    out.line(f"br {condition}, label %{good}, label %{failed}, !prof {weights}")
    out.begin(good)
