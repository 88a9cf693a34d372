"""The host program of a variant as LLVM IR text: the exported functions of the C ABI but for the thread pool.

Takes a `Variant` and the symbol of each kernel; gives one module. Invariant: it touches tensors only through
kernels; what is static is folded; guards are checked again by `tessera_run`, so that a caller who skipped
`tessera_prepare` gets an error, not a fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from bundle_format.abi import Status
from tessera_build.backends.llvm.emit_run import BAD, entry_dims, guard, is_early, run_ir
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.host_support import CALL, CALL_BYTES, PLAN, SUPPORT, fail
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm.pool import FLOATING_POINT_ENTER, FLOATING_POINT_LEAVE, floating_point_ir
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.ir.core.dims import symbols_of
from tessera_build.ir.core.node import walk
from tessera_build.ir.target.host import Entry, Guard, Read, Repeat, Variant, extents_of

HOST_EXPORTS = ("tessera_describe", "tessera_signature", "tessera_prepare", "tessera_run")
ABI_VERSION = 1


def host_ir(variant: Variant, symbols: Mapping[str, str], options: CodegenOptions) -> str:
    """The module of the host program; `symbols` maps kernels' names to the functions that the linker will find."""
    declarations: set[str] = set()
    entries: list[str] = []
    for number, entry in enumerate(variant.entries):
        for writer in (_guards, _prepare):
            entries.append(writer(number, entry, declarations))
        entries.append(run_ir(number, entry, symbols, declarations))
    used = sorted({symbols[node.kernel] for entry in variant.entries for node in entry.launches})
    parts = [
        f'target triple = "{options.triple}"\n',
        floating_point_ir(options.architecture),
        SUPPORT,
        _describe(variant),
        *entries,
        _prepare_export(variant),
        _run_export(variant),
        "".join(f"declare hidden i32 @{symbol}(ptr, i64)\n" for symbol in used),
        "".join(f"{declaration}\n" for declaration in sorted(declarations)),
        'attributes #0 = { nounwind "no-builtins" "frame-pointer"="none" }\n',
    ]
    return "\n".join(parts)


def _describe(variant: Variant) -> str:
    """What the code says of itself. Readers of formats before 1.4 refuse more than they know: the rest stands apart."""
    entries = variant.entries
    names = [entry.name for entry in entries]
    counts = {"inputs": [entry.inputs for entry in entries], "outputs": [len(entry.outputs) for entry in entries]}
    described = {"abi": ABI_VERSION, "entries": names, "weights": variant.weights}
    return _text("tessera_describe", described) + _text("tessera_signature", counts)


def _text(name: str, content: Mapping[str, object]) -> str:
    """A function that gives JSON."""
    text = json.dumps(content).encode()
    escaped = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in text)
    return (
        f'@{name}.text = internal constant [{len(text) + 1} x i8] c"{escaped}\\00"\n'
        f"define ptr @{name}() #0 {{\n  ret ptr @{name}.text\n}}\n"
    )


def _guards(number: int, entry: Entry, declarations: set[str]) -> str:
    """Status 0, or the first guard that fails."""
    out = FunctionText()
    if entry.dims:
        given, absent = out.label("given"), out.tail("absent", fail(BAD, "-1"), "ret i32 %failed")
        missing = out.temporary("icmp eq ptr %dims, null")
        out.line(f"br i1 {missing}, label %{absent}, label %{given}")
        out.begin(given)
    dims = entry_dims(out, entry, "%dims")
    for node in entry.nodes:
        if isinstance(node, Guard) and is_early(entry, node):
            guard(out, dims, node)
    out.line("ret i32 0")
    declarations.update(out.declarations().splitlines())
    return f"define internal i32 @guards{number}(ptr %dims, ptr %error) #0 {{\n{out.body()}\n}}\n"


def _prepare(number: int, entry: Entry, declarations: set[str]) -> str:
    """Guards, workspace bytes, output shapes with -1 for what depends on data."""
    out = FunctionText()
    good, bad = out.label("good"), out.label("bad")
    status = out.temporary(f"call i32 @guards{number}(ptr %dims, ptr %error)")
    failed = out.temporary(f"icmp ne i32 {status}, 0")
    out.line(f"br i1 {failed}, label %{bad}, label %{good}")
    out.begin(bad)
    out.line(f"ret i32 {status}")
    out.begin(good)
    # A size beyond 64 bits must be one that nobody grants: the extents of an input without elements cost nothing.
    dims = entry_dims(out, entry, "%dims").saturating()
    out.line(f"store i64 {dims.write(entry.arena_bytes)}, ptr %plan, align 8")
    shapes_at = out.temporary(f"getelementptr i8, ptr %plan, i64 {PLAN['output_shapes']}")
    shapes = out.temporary(f"load ptr, ptr {shapes_at}, align 8")
    wanted, done = out.label("wanted"), out.label("done")
    absent = out.temporary(f"icmp eq ptr {shapes}, null")
    out.line(f"br i1 {absent}, label %{done}, label %{wanted}")
    out.begin(wanted)
    for position, extent in enumerate(extent for shape in entry.outputs for extent in shape):
        address = out.temporary(f"getelementptr i64, ptr {shapes}, i64 {position}")
        known = "-1" if entry.depends_on_data(extent) else dims.write(extent)
        out.line(f"store i64 {known}, ptr {address}, align 8")
    out.line(f"br label %{done}")
    out.begin(done)
    out.line("ret i32 0")
    declarations.update(out.declarations().splitlines())
    return f"define internal i32 @prepare{number}(ptr %dims, ptr %plan, ptr %error) #0 {{\n{out.body()}\n}}\n"


def _prepare_export(variant: Variant) -> str:
    cases = "".join(
        f"case{n}:\n  %s{n} = tail call i32 @prepare{n}(ptr %dims, ptr %plan, ptr %error)\n  ret i32 %s{n}\n"
        for n in range(len(variant.entries))
    )
    return (
        "define i32 @tessera_prepare(i32 %entry, ptr %dims, ptr %plan, ptr %error) #0 {\n"
        "  %noplan = icmp eq ptr %plan, null\n"
        "  br i1 %noplan, label %refuse, label %choose\n"
        f"choose:\n  switch i32 %entry, label %refuse [ {_cases(variant)} ]\n{cases}"
        f"refuse:\n  {fail(BAD, '-1')}\n  ret i32 %failed\n}}\n"
    )


def _cases(variant: Variant) -> str:
    return " ".join(f"i32 {number}, label %case{number}" for number in range(len(variant.entries)))


def _run_export(variant: Variant) -> str:
    """Refuses a table that is too small, sets the floating-point control word, and puts it back."""
    cases = "".join(
        f"case{n}:\n  %s{n} = call i32 @run{n}(ptr %call)\n  br label %leave\n" for n in range(len(variant.entries))
    )
    edges = ", ".join(f"[ %s{n}, %case{n} ]" for n in range(len(variant.entries)))
    if not edges:
        raise CompileError("a variant needs at least one entry")
    return f"""define i32 @tessera_run(ptr %call) #0 {{
  %nocall = icmp eq ptr %call, null
  br i1 %nocall, label %refuse, label %sized
sized:
  %bytes = load i32, ptr %call, align 8
  %small = icmp ult i32 %bytes, {CALL_BYTES}
  br i1 %small, label %refuse, label %read
read:
  %services.at = getelementptr i8, ptr %call, i64 {CALL["services"]}
  %services = load ptr, ptr %services.at, align 8
  %noservices = icmp eq ptr %services, null
  br i1 %noservices, label %refuse, label %enter
enter:
  %entry.at = getelementptr i8, ptr %call, i64 {CALL["entry"]}
  %number = load i32, ptr %entry.at, align 4
  %old = call i64 @{FLOATING_POINT_ENTER}()
  switch i32 %number, label %unknown [ {_cases(variant)} ]
{cases}unknown:
  br label %leave
leave:
  %status = phi i32 {edges}, [ {int(Status.BAD_ARGUMENT)}, %unknown ]
  call void @{FLOATING_POINT_LEAVE}(i64 %old)
  ret i32 %status
refuse:
  ret {BAD}
}}
"""


def check_variant(variant: Variant) -> None:
    """Raise `CompileError` for names that do not resolve: kernels without a definition, dims that no entry has."""
    defined = {kernel.name for kernel in variant.kernels}
    faults: list[str] = []
    for entry in variant.entries:
        known = {*entry.dims, *(node.symbol for node in walk(entry.nodes) if isinstance(node, Read))}
        known |= {node.index for node in walk(entry.nodes) if isinstance(node, Repeat)}
        for node in entry.launches:
            if node.kernel not in defined:
                faults.append(f"kernel `{node.kernel}` is launched by `{entry.name}` and not defined")
            unknown = sorted({name for extent in extents_of(node) for name in symbols_of(extent)} - known)
            if unknown:
                faults.append(f"dims {', '.join(unknown)} of `{node.kernel}` are not dims of `{entry.name}`")
    if faults:
        raise CompileError("the host program does not resolve", found="; ".join(faults))
