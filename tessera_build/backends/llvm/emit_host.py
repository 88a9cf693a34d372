"""The host program of a variant as LLVM IR text: the exported functions of the C ABI but for the thread pool.

Takes a `Variant` and the symbol of each kernel; gives one module. Invariant: it touches tensors only through
kernels; what is static is folded; guards are checked again by `tessera_run`, so that a caller who skipped
`tessera_prepare` gets an error, not a fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from bundle_format.abi import Status
from tessera_build.backends.llvm.emit_dims import DimWriter
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.host_support import CALL, CALL_BYTES, PLAN, SUPPORT
from tessera_build.backends.llvm.objects import CodegenOptions
from tessera_build.backends.llvm.pool import FLOATING_POINT_ENTER, FLOATING_POINT_LEAVE, floating_point_ir
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.ir.core.dims import symbols_of
from tessera_build.ir.target.host import Buffer, Entry, Guard, Launch, Variant

HOST_EXPORTS = ("tessera_describe", "tessera_prepare", "tessera_run")
ABI_VERSION = 1

_TABLES = {"input": "inputs", "output": "outputs", "weight": "weights"}
_BAD = f"i32 {int(Status.BAD_ARGUMENT)}"


def host_ir(variant: Variant, symbols: Mapping[str, str], options: CodegenOptions) -> str:
    """The module of the host program; `symbols` maps kernels' names to the functions that the linker will find."""
    declarations: set[str] = set()
    entries: list[str] = []
    for number, entry in enumerate(variant.entries):
        for writer in (_guards, _prepare):
            entries.append(writer(number, entry, declarations))
        entries.append(_run(number, entry, symbols, declarations))
    used = sorted({symbols[node.kernel] for entry in variant.entries for node in _launches(entry)})
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


def _launches(entry: Entry) -> list[Launch]:
    return [node for node in entry.nodes if isinstance(node, Launch)]


def _describe(variant: Variant) -> str:
    names = [entry.name for entry in variant.entries]
    text = json.dumps({"abi": ABI_VERSION, "entries": names, "weights": variant.weights}).encode()
    escaped = "".join(chr(c) if 32 <= c < 127 and c not in b'"\\' else f"\\{c:02X}" for c in text)
    return (
        f'@description = internal constant [{len(text) + 1} x i8] c"{escaped}\\00"\n'
        "define ptr @tessera_describe() #0 {\n  ret ptr @description\n}\n"
    )


def _dims(out: FunctionText, entry: Entry, pointer: str) -> DimWriter:
    """Load the entry's dims; the rest of the function computes with them."""
    symbols: dict[str, str] = {}
    for position, name in enumerate(entry.dims):
        address = out.temporary(f"getelementptr i64, ptr {pointer}, i64 {position}")
        symbols[name] = out.temporary(f"load i64, ptr {address}, align 8")
    return DimWriter(out, symbols)


def _guards(number: int, entry: Entry, declarations: set[str]) -> str:
    """Status 0, or the first guard that fails."""
    out = FunctionText()
    if entry.dims:
        given, absent = out.label("given"), out.tail("absent", _fail(_BAD, "-1", "0", "0", "0"), "ret i32 %failed")
        missing = out.temporary("icmp eq ptr %dims, null")
        out.line(f"br i1 {missing}, label %{absent}, label %{given}")
        out.begin(given)
    dims = _dims(out, entry, "%dims")
    for node in entry.nodes:
        if isinstance(node, Guard):
            _guard(out, dims, node)
    out.line("ret i32 0")
    declarations.update(out.declarations().splitlines())
    return f"define internal i32 @guards{number}(ptr %dims, ptr %error) #0 {{\n{out.body()}\n}}\n"


def _guard(out: FunctionText, dims: DimWriter, node: Guard) -> None:
    left, right = dims.write(node.left), dims.write(node.right)
    relation = {"lt": "slt", "le": "sle"}.get(node.relation, node.relation)
    holds = out.temporary(f"icmp {relation} i64 {left}, {right}")
    good, bad = out.label("good"), out.label("bad")
    out.line(f"br i1 {holds}, label %{good}, label %{bad}")
    out.begin(bad)
    status = out.name()
    out.line(_fail(f"i32 {int(Status.GUARD_FAILED)}", "-1", str(node.index), left, right).replace("%failed", status))
    out.line(f"ret i32 {status}")
    out.begin(good)


def _fail(status: str, node: str, first: str, second: str, third: str) -> str:
    return f"%failed = call i32 @fail(ptr %error, {status}, i32 {node}, i64 {first}, i64 {second}, i64 {third})"


def _prepare(number: int, entry: Entry, declarations: set[str]) -> str:
    """Guards, workspace bytes, output shapes."""
    out = FunctionText()
    good, bad = out.label("good"), out.label("bad")
    status = out.temporary(f"call i32 @guards{number}(ptr %dims, ptr %error)")
    failed = out.temporary(f"icmp ne i32 {status}, 0")
    out.line(f"br i1 {failed}, label %{bad}, label %{good}")
    out.begin(bad)
    out.line(f"ret i32 {status}")
    out.begin(good)
    dims = _dims(out, entry, "%dims")
    out.line(f"store i64 {dims.write(entry.arena_bytes)}, ptr %plan, align 8")
    shapes_at = out.temporary(f"getelementptr i8, ptr %plan, i64 {PLAN['output_shapes']}")
    shapes = out.temporary(f"load ptr, ptr {shapes_at}, align 8")
    wanted, done = out.label("wanted"), out.label("done")
    absent = out.temporary(f"icmp eq ptr {shapes}, null")
    out.line(f"br i1 {absent}, label %{done}, label %{wanted}")
    out.begin(wanted)
    for position, extent in enumerate(extent for shape in entry.outputs for extent in shape):
        address = out.temporary(f"getelementptr i64, ptr {shapes}, i64 {position}")
        out.line(f"store i64 {dims.write(extent)}, ptr {address}, align 8")
    out.line(f"br label %{done}")
    out.begin(done)
    out.line("ret i32 0")
    declarations.update(out.declarations().splitlines())
    return f"define internal i32 @prepare{number}(ptr %dims, ptr %plan, ptr %error) #0 {{\n{out.body()}\n}}\n"


def _field(out: FunctionText, name: str) -> str:
    address = out.temporary(f"getelementptr i8, ptr %call, i64 {CALL[name]}")
    return out.temporary(f"load ptr, ptr {address}, align 8")


def _run(number: int, entry: Entry, symbols: Mapping[str, str], declarations: set[str]) -> str:
    """Guards, then each launch in order; the first status that is not 0 ends the run."""
    out = FunctionText()
    error, dims_pointer = _field(out, "error"), _field(out, "dims")
    _leave_on_failure(out, out.temporary(f"call i32 @guards{number}(ptr {dims_pointer}, ptr {error})"))
    dims = _dims(out, entry, dims_pointer)
    launches = _launches(entry)
    bases = _Bases(out, launches, error)
    slots = max((len(node.buffers) + len(node.dims) for node in launches), default=0)
    out.entry_line(f"%slots = alloca [{max(1, slots)} x i64], align 16")
    for position, node in enumerate(launches):
        arguments = [bases.address(buffer, dims) for buffer in node.buffers]
        arguments += [f"i64 {dims.write(extent)}" for extent in node.dims]
        for slot, argument in enumerate(arguments):
            address = out.temporary(f"getelementptr i64, ptr %slots, i64 {slot}")
            out.line(f"store {argument}, ptr {address}, align 8")
        count = dims.write(node.count)
        launch = f"i64 {count}, i32 {position}, i32 {node.node}"
        status = out.temporary(f"call i32 @launch(ptr %call, ptr @{symbols[node.kernel]}, ptr %slots, {launch})")
        _leave_on_failure(out, status)
    out.line("ret i32 0")
    declarations.update(out.declarations().splitlines())
    return f"define internal i32 @run{number}(ptr %call) #0 {{\n{out.body()}\n}}\n"


def _leave_on_failure(out: FunctionText, status: str) -> None:
    good, bad = out.label("good"), out.label("bad")
    failed = out.temporary(f"icmp ne i32 {status}, 0")
    out.line(f"br i1 {failed}, label %{bad}, label %{good}")
    out.begin(bad)
    out.line(f"ret i32 {status}")
    out.begin(good)


class _Bases:
    """The tables of pointers that the launches use, loaded once and refused when NULL."""

    def __init__(self, out: FunctionText, launches: list[Launch], error: str) -> None:
        self._out = out
        spaces = sorted({buffer.space for node in launches for buffer in node.buffers})
        self._tables = {space: _field(out, _TABLES.get(space, "workspace")) for space in spaces}
        for table in self._tables.values():
            missing = out.temporary(f"icmp eq ptr {table}, null")
            given = out.label("given")
            absent = out.tail("absent", _fail(_BAD, "-1", "0", "0", "0").replace("%error", error), "ret i32 %failed")
            out.line(f"br i1 {missing}, label %{absent}, label %{given}")
            out.begin(given)

    def address(self, buffer: Buffer, dims: DimWriter) -> str:
        """The buffer's address as a typed operand."""
        out, table = self._out, self._tables[buffer.space]
        if buffer.space != "arena":
            entry = out.temporary(f"getelementptr ptr, ptr {table}, i64 {buffer.index}")
            table = out.temporary(f"load ptr, ptr {entry}, align 8")
        offset = dims.write(buffer.offset)
        return (
            f"ptr {table}" if offset == "0" else f"ptr {out.temporary(f'getelementptr i8, ptr {table}, i64 {offset}')}"
        )


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
        f"refuse:\n  {_fail(_BAD, '-1', '0', '0', '0')}\n  ret i32 %failed\n}}\n"
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
  ret {_BAD}
}}
"""


def check_variant(variant: Variant) -> None:
    """Raise `CompileError` for names that do not resolve: kernels without a definition, dims that no entry has."""
    defined = {kernel.name for kernel in variant.kernels}
    faults: list[str] = []
    for entry in variant.entries:
        for node in _launches(entry):
            if node.kernel not in defined:
                faults.append(f"kernel `{node.kernel}` is launched by `{entry.name}` and not defined")
            extents = (node.count, *node.dims, *(buffer.offset for buffer in node.buffers))
            unknown = sorted({name for extent in extents for name in symbols_of(extent)} - set(entry.dims))
            if unknown:
                faults.append(f"dims {', '.join(unknown)} of `{node.kernel}` are not dims of `{entry.name}`")
    if faults:
        raise CompileError("the host program does not resolve", found="; ".join(faults))
