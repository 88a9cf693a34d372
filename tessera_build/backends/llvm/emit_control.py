"""Loops and choices of a host program as LLVM IR text.

Takes a `Repeat`, a `Choose` or an `Apart` and the writer of the run around it; writes blocks. Invariant: carried values
are not copied between iterations: three addresses a value take turns, and only the last value is moved, if it is not
where it belongs.
"""

from __future__ import annotations

from typing import Protocol

from tessera_build.backends.llvm.emit_dims import DimWriter
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.ir.core.node import Node
from tessera_build.ir.target.host import Apart, Buffer, Choose, Repeat


class RunWriter(Protocol):
    """What control flow needs of the run it stands in."""

    out: FunctionText

    def block(self, nodes: tuple[Node, ...], dims: DimWriter) -> None:
        """Write nodes in order."""
        ...

    def address(self, buffer: Buffer, dims: DimWriter) -> str:
        """A buffer's address as a typed operand."""
        ...


def carried_slot(number: int) -> str:
    """The stack slot that holds a carried address."""
    return f"%carried{number}"


def write_choice(run: RunWriter, node: Choose, dims: DimWriter) -> None:
    """One of two blocks."""
    out = run.out
    chosen = _truth(run, run.address(node.condition, dims))
    labels = out.label("then"), out.label("otherwise")
    done = out.label("chosen")
    out.line(f"br i1 {chosen}, label %{labels[0]}, label %{labels[1]}")
    for label, region in zip(labels, (node.then, node.otherwise), strict=True):
        out.begin(label)
        run.block(region.nodes, dims.nested())
        out.line(f"br label %{done}")
    out.begin(done)


def write_apart(run: RunWriter, node: Apart, dims: DimWriter) -> None:
    """A block, unless two addresses are one."""
    out = run.out
    left, right = run.address(node.left, dims), run.address(node.right, dims)
    body, done = out.label("apart"), out.label("together")
    same = out.temporary(f"icmp eq {left}, {right.removeprefix('ptr ')}")
    out.line(f"br i1 {same}, label %{done}, label %{body}")
    out.begin(body)
    run.block(node.body.nodes, dims.nested())
    out.line(f"br label %{done}")
    out.begin(done)


def write_repeat(run: RunWriter, node: Repeat, dims: DimWriter) -> None:
    """A loop: its index and the addresses of what it carries live in stack slots, which LLVM makes registers."""
    out = run.out
    trips = dims.write(node.trips)
    position = f"%index{node.slot}_{node.index}"
    out.entry_line(f"{position} = alloca i64, align 8")
    out.line(f"store i64 0, ptr {position}, align 8")
    homes = _begin_carried(run, node, dims, trips)
    again, body, done = out.label("again"), out.label("body"), out.label("done")
    out.line(f"br label %{again}")
    out.begin(again)
    count = out.temporary(f"load i64, ptr {position}, align 8")
    more = out.temporary(f"icmp slt i64 {count}, {trips}")
    if node.conditional:
        byte = out.temporary(f"load ptr, ptr {carried_slot(node.slot)}, align 8")
        more = out.temporary(f"and i1 {more}, {_truth(run, f'ptr {byte}')}")
    out.line(f"br i1 {more}, label %{body}, label %{done}")
    out.begin(body)
    inner = dims.nested()
    if node.downward:
        inner.define(node.index, out.temporary(f"sub i64 {out.temporary(f'sub i64 {trips}, 1')}, {count}"))
    else:
        inner.define(node.index, count)
    run.block(node.body.nodes, inner)
    for number in range(len(node.carried)):
        _rotate(out, node.slot + 2 * number)
    out.line(f"store i64 {out.temporary(f'add i64 {count}, 1')}, ptr {position}, align 8")
    out.line(f"br label %{again}")
    out.begin(done)
    _end_carried(run, node, homes, dims)


def _begin_carried(run: RunWriter, node: Repeat, dims: DimWriter, trips: str) -> list[str]:
    """Point to the first places; gives the homes. Where every iteration runs, the last one writes to the home."""
    out = run.out
    odd = out.temporary(f"trunc i64 {trips} to i1") if not node.conditional else "true"
    homes: list[str] = []
    for number, value in enumerate(node.carried):
        slot = node.slot + 2 * number
        initial, home, spare = (run.address(b, dims) for b in (value.initial, value.home, value.spare))
        first = out.temporary(f"select i1 {odd}, {home}, {spare}")
        second = out.temporary(f"select i1 {odd}, {spare}, {home}")
        for name, address in ((slot, initial), (slot + 1, f"ptr {first}"), (f"{slot}s", f"ptr {second}")):
            out.entry_line(f"%carried{name} = alloca ptr, align 8")
            out.line(f"store {address}, ptr %carried{name}, align 8")
        homes.append(home)
    return homes


def _rotate(out: FunctionText, slot: int) -> None:
    """What was written is read next, and the place read before last is written next."""
    written = out.temporary(f"load ptr, ptr {carried_slot(slot + 1)}, align 8")
    spare = out.temporary(f"load ptr, ptr %carried{slot}s, align 8")
    out.line(f"store ptr {written}, ptr {carried_slot(slot)}, align 8")
    out.line(f"store ptr {spare}, ptr {carried_slot(slot + 1)}, align 8")
    out.line(f"store ptr {written}, ptr %carried{slot}s, align 8")


def _end_carried(run: RunWriter, node: Repeat, homes: list[str], dims: DimWriter) -> None:
    for number, (value, home) in enumerate(zip(node.carried, homes, strict=True)):
        if number or not node.conditional:
            last = run.out.temporary(f"load ptr, ptr {carried_slot(node.slot + 2 * number)}, align 8")
            run.out.line(f"call void @copy({home}, ptr {last}, i64 {dims.write(value.bytes)})")


def _truth(run: RunWriter, address: str) -> str:
    """Whether the byte at a typed address is not zero."""
    byte = run.out.temporary(f"load i8, {address}, align 1")
    return run.out.temporary(f"icmp ne i8 {byte}, 0")
