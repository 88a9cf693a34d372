"""The run of one entry as LLVM IR text: its host nodes in order, the memory of data-dependent sizes, the way out.

Takes an `Entry` and the symbol of each kernel; gives two functions, the run and what undoes it. Invariant: a run that
fails, wherever it does, has released its dynamic slots and the outputs that it had allocated.
"""

from __future__ import annotations

from collections.abc import Mapping

from bundle_format.abi import Status
from tessera_build.backends.llvm.emit_control import carried_slot, write_apart, write_choice, write_repeat
from tessera_build.backends.llvm.emit_dims import DimWriter
from tessera_build.backends.llvm.host_support import CALL, DYNAMIC_CALL_BYTES, LARGEST, fail
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.ir.core.node import Node, walk
from tessera_build.ir.target.host import (
    Allocate,
    Apart,
    Buffer,
    Choose,
    Entry,
    Guard,
    Launch,
    Read,
    Release,
    Repeat,
    buffers_of,
)

_TABLES = {"input": "inputs", "output": "outputs", "weight": "weights"}
BAD = f"i32 {int(Status.BAD_ARGUMENT)}"


def entry_dims(out: FunctionText, entry: Entry, pointer: str) -> DimWriter:
    """Load the entry's dims; the rest of the function computes with them."""
    symbols: dict[str, str] = {}
    for position, name in enumerate(entry.dims):
        address = out.temporary(f"getelementptr i64, ptr {pointer}, i64 {position}")
        symbols[name] = out.temporary(f"load i64, ptr {address}, align 8")
    return DimWriter(out, symbols)


def guard(out: FunctionText, dims: DimWriter, node: Guard, undo: str = "", error: str = "%error") -> None:
    """Leave with status 4 unless the guard holds; `undo` is called before."""
    left, right = dims.write(node.left), dims.write(node.right)
    relation = {"lt": "slt", "le": "sle"}.get(node.relation, node.relation)
    holds = out.temporary(f"icmp {relation} i64 {left}, {right}")
    good, bad = out.label("good"), out.label("bad")
    out.line(f"br i1 {holds}, label %{good}, label %{bad}")
    out.begin(bad)
    status = out.name()
    values = (str(node.index), left, right)
    out.line(fail(f"i32 {int(Status.GUARD_FAILED)}", "-1", values, (status, error)))
    if undo:
        out.line(undo)
    out.line(f"ret i32 {status}")
    out.begin(good)


def is_early(entry: Entry, node: Node) -> bool:
    """Whether a node is a guard over the entry's dims alone, which is checked before a run begins."""
    return isinstance(node, Guard) and not (entry.depends_on_data(node.left) or entry.depends_on_data(node.right))


def run_ir(number: int, entry: Entry, symbols: Mapping[str, str], declarations: set[str]) -> str:
    """The functions `run{number}` and, where there is memory to give back, `undo{number}`."""
    writer = _Run(number, entry, symbols)
    text = writer.text()
    declarations.update(writer.out.declarations().splitlines())
    return text + _undo(number, entry)


def _has_memory(entry: Entry) -> bool:
    return entry.slots > 0 or bool(entry.dynamic_outputs)


def _undo(number: int, entry: Entry) -> str:
    """Release what a run holds: its slots, whose addresses begin the workspace, and the outputs that it allocated."""
    if not _has_memory(entry):
        return ""
    out = FunctionText()
    for field, places in (("workspace", range(entry.slots)), ("outputs", entry.dynamic_outputs)):
        table = _field(out, field) if places else ""
        for place in places:
            at = out.temporary(f"getelementptr ptr, ptr {table}, i64 {place}")
            out.line(f"call void @drop(ptr %call, ptr {at})")
    out.line("ret void")
    return f"\ndefine internal void @undo{number}(ptr %call) noinline cold #0 {{\n{out.body()}\n}}\n"


def _field(out: FunctionText, name: str) -> str:
    address = out.temporary(f"getelementptr i8, ptr %call, i64 {CALL[name]}")
    return out.temporary(f"load ptr, ptr {address}, align 8")


class _Run:
    """One function under construction. Launches are numbered in text order, as profiles name them."""

    def __init__(self, number: int, entry: Entry, symbols: Mapping[str, str]) -> None:
        self.out = FunctionText()
        self._number = number
        self._entry = entry
        self._symbols = symbols
        self._launches = 0
        self._undo = f"call void @undo{number}(ptr %call)" if _has_memory(entry) else ""
        self._error = ""
        self._tables: dict[str, str] = {}

    def text(self) -> str:
        """Guards, then each node in order; the first status that is not 0 ends the run."""
        out, entry = self.out, self._entry
        self._error, dims_pointer = _field(out, "error"), _field(out, "dims")
        self._leave_on_failure(out.temporary(f"call i32 @guards{self._number}(ptr {dims_pointer}, ptr {self._error})"))
        dims = entry_dims(out, entry, dims_pointer)
        self._load_tables()
        self._begin_memory()
        slots = max((len(node.buffers) + len(node.dims) for node in entry.launches), default=0)
        out.entry_line(f"%slots = alloca [{max(1, slots)} x i64], align 16")
        self.block(entry.nodes, dims)
        if entry.dynamic_outputs:
            self._give_shapes(dims)
        out.line("ret i32 0")
        return f"define internal i32 @run{self._number}(ptr %call) #0 {{\n{out.body()}\n}}\n"

    def block(self, nodes: tuple[Node, ...], dims: DimWriter) -> None:
        """Nodes in order; `dims` learns the sizes that they read."""
        for node in nodes:
            match node:
                case Launch():
                    self._launch(node, dims)
                case Read():
                    self._read(node, dims)
                case Allocate():
                    self._allocate(node, dims)
                case Release():
                    slot = self.out.temporary(f"getelementptr ptr, ptr {self._tables['dynamic']}, i64 {node.index}")
                    self.out.line(f"call void @drop(ptr %call, ptr {slot})")
                case Repeat():
                    write_repeat(self, node, dims)
                case Choose():
                    write_choice(self, node, dims)
                case Apart():
                    write_apart(self, node, dims)
                case Guard() if not is_early(self._entry, node):
                    guard(self.out, dims, node, self._undo, self._error)
                case _:
                    pass

    def _launch(self, node: Launch, dims: DimWriter) -> None:
        out = self.out
        arguments = [self.address(buffer, dims) for buffer in node.buffers]
        arguments += [f"i64 {dims.write(extent)}" for extent in node.dims]
        for slot, argument in enumerate(arguments):
            address = out.temporary(f"getelementptr i64, ptr %slots, i64 {slot}")
            out.line(f"store {argument}, ptr {address}, align 8")
        count = dims.write(node.count)
        launch = f"i64 {count}, i32 {self._launches}, i32 {node.node}"
        self._launches += 1
        kernel = self._symbols[node.kernel]
        self._leave_on_failure(out.temporary(f"call i32 @launch(ptr %call, ptr @{kernel}, ptr %slots, {launch})"))

    def _read(self, node: Read, dims: DimWriter) -> None:
        out = self.out
        base = self.address(node.buffer, dims)
        address = out.temporary(f"getelementptr i64, {base}, i64 {node.element}")
        # An input of the caller may lie anywhere.
        value = out.temporary(f"load i64, ptr {address}, align 1")
        upper = dims.write(LARGEST if node.upper == -1 else node.upper)
        check = f"i64 {value}, i64 {upper}, i32 {node.node}"
        self._leave_on_failure(out.temporary(f"call i32 @size(ptr {self._error}, {check})"))
        dims.define(node.symbol, value)

    def _allocate(self, node: Allocate, dims: DimWriter) -> None:
        at = self.out.temporary(f"getelementptr ptr, ptr {self._tables[node.space]}, i64 {node.index}")
        wanted = f"i64 {dims.saturating().write(node.bytes)}, i32 {node.node}"
        self._leave_on_failure(self.out.temporary(f"call i32 @allocate(ptr %call, ptr {at}, {wanted})"))

    def _leave_on_failure(self, status: str) -> None:
        out = self.out
        good, bad = out.label("good"), out.label("bad")
        failed = out.temporary(f"icmp ne i32 {status}, 0")
        out.line(f"br i1 {failed}, label %{bad}, label %{good}")
        out.begin(bad)
        # Until the tables are loaded there is nothing to undo.
        if self._undo and self._tables:
            out.line(self._undo)
        out.line(f"ret i32 {status}")
        out.begin(good)

    # -- tables and memory --------------------------------------------------------------------------------------------

    def _load_tables(self) -> None:
        """The tables of pointers that the nodes use, loaded once and refused when NULL."""
        spaces = {buffer.space for node in walk(self._entry.nodes) for buffer in buffers_of(node)} - {"carried"}
        spaces |= {"output"} if self._entry.dynamic_outputs else set()
        spaces |= {"dynamic"} if self._entry.slots else set()
        found: dict[str, str] = {}
        for space in sorted(spaces):
            found[space] = _field(self.out, _TABLES.get(space, "workspace"))
            self._refuse(f"icmp eq ptr {found[space]}, null")
        self._tables = found

    def _refuse(self, test: str) -> None:
        """Leave with BAD_ARGUMENT when a test holds; nothing is undone, because nothing was done."""
        out = self.out
        refused, accepted = out.temporary(test), out.label("given")
        lines = (fail(BAD, "-1", ("0", "0", "0"), ("%failed", self._error)), "ret i32 %failed")
        out.line(f"br i1 {refused}, label %{out.tail('absent', *lines)}, label %{accepted}")
        out.begin(accepted)

    def _begin_memory(self) -> None:
        """Demand what memory and outputs of unknown size need of the call, and begin with empty slots."""
        out, entry = self.out, self._entry
        if not _has_memory(entry):
            return
        services = _field(out, "services")
        for offset in (16, 24):  # allocate, release
            at = out.temporary(f"getelementptr i8, ptr {services}, i64 {offset}")
            self._refuse(f"icmp eq ptr {out.temporary(f'load ptr, ptr {at}, align 8')}, null")
        if entry.dynamic_outputs:
            size = out.temporary("load i32, ptr %call, align 8")
            self._refuse(f"icmp ult i32 {size}, {DYNAMIC_CALL_BYTES}")
            self._refuse(f"icmp eq ptr {_field(out, 'output_shapes')}, null")
        for index in entry.dynamic_outputs:
            at = out.temporary(f"getelementptr ptr, ptr {self._tables['output']}, i64 {index}")
            self._refuse(f"icmp ne ptr {out.temporary(f'load ptr, ptr {at}, align 8')}, null")
        for slot in range(entry.slots):
            at = out.temporary(f"getelementptr ptr, ptr {self._tables['dynamic']}, i64 {slot}")
            out.line(f"store ptr null, ptr {at}, align 8")

    def _give_shapes(self, dims: DimWriter) -> None:
        shapes = _field(self.out, "output_shapes")
        for position, extent in enumerate(extent for shape in self._entry.outputs for extent in shape):
            address = self.out.temporary(f"getelementptr i64, ptr {shapes}, i64 {position}")
            self.out.line(f"store i64 {dims.write(extent)}, ptr {address}, align 8")

    def address(self, buffer: Buffer, dims: DimWriter) -> str:
        """The buffer's address as a typed operand."""
        out, table = self.out, self._tables.get(buffer.space, "")
        if buffer.space == "carried":
            table = out.temporary(f"load ptr, ptr {carried_slot(buffer.index)}, align 8")
        elif buffer.space != "arena":
            entry = out.temporary(f"getelementptr ptr, ptr {table}, i64 {buffer.index}")
            table = out.temporary(f"load ptr, ptr {entry}, align 8")
        offset = dims.write(buffer.offset)
        return (
            f"ptr {table}" if offset == "0" else f"ptr {out.temporary(f'getelementptr i8, ptr {table}, i64 {offset}')}"
        )
