"""Bind contractions to a machine's matrix instructions, with the copies that feed them.

    for %k step 32 {scope = "serial"} {          for %k step 32 {scope = "serial", stage = 3} {
      contract %a, %b "mk,kn->mn"            →     contract %a, %b {instruction = "mma.m16n8k16.bf16", ...}
    }                                            }

Takes a function bound by `BindGroup`; gives it with every loop that is nothing but a contraction of 16-bit views,
declared to add in hardware order, bound to the first row of the machine's table that fits. Invariant: only `binding`
fields change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tessera_build.ir.core.dims import Dim, Extent, terms_of
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.rewrite import map_nodes
from tessera_build.ir.core.types import Type
from tessera_build.ir.machine.group import GroupMachine
from tessera_build.ir.machine.instructions import Instruction
from tessera_build.ir.tile import nodes as t

CHUNK = 8  # elements of 16 bits in one copy of 16 bytes, which must lie inside or outside the buffer as a whole


@dataclass(frozen=True, slots=True)
class BindMatrix:
    """The pass, for one machine."""

    machine: GroupMachine

    def run(self, function: Function) -> Function:
        """The function with its contractions bound where an instruction fits."""
        steps = {n.index: n.step for n in function.walk() if isinstance(n, t.For)}
        makers = {n.result: n for n in function.walk() if isinstance(n, t.Map | t.Load)}
        layouts: dict[int, str] = {}
        rows: dict[int, Instruction] = {}
        for loop in function.walk():
            contract = _only_contract(loop)
            if not isinstance(loop, t.For) or contract is None or loop.carried[0] not in makers:
                continue
            row = next((r for r in self._rows(function, contract) if _views_fit(function, loop, steps)), None)
            if row is not None:
                rows[contract.result] = row
                layouts |= dict.fromkeys((loop.carried[0], loop.results[0]), _fragments(row))
        _spread(function, layouts)
        return map_nodes(function, lambda node: self._bind(node, rows, layouts))

    def _rows(self, function: Function, contract: t.Contract) -> Iterator[Instruction]:
        types = [function.types[v] for v in (contract.acc, contract.a, contract.b)]
        for row in self.machine.instructions:
            if row.executor in ("warp", "warpgroup") and contract.order == row.order and _fits(row, types):
                yield row

    def _bind(self, node: Node, rows: Mapping[int, Instruction], layouts: Mapping[int, str]) -> Node:
        match node:
            case t.For() if any(result in rows for result in node.body.results):
                return replace(node, binding=t.Binding(scope="serial", stage=self.machine.async_stages))
            case t.Contract() if node.result in rows:
                row = rows[node.result]
                return replace(node, binding=t.Binding(layout=_fragments(row), instruction=row.name))
            case t.Map() | t.Load() if node.result in layouts:
                return replace(node, binding=t.Binding(space="register", layout=layouts[node.result]))
            case _:
                return node


def _only_contract(loop: Node) -> t.Contract | None:
    """The contraction that adds to a loop's only carried tile, if the body holds nothing else but its two views."""
    if not isinstance(loop, t.For) or len(loop.carried) != 1 or len(loop.body.nodes) != 3:
        return None
    *views, last = loop.body.nodes
    if not isinstance(last, t.Contract) or last.spec != "mk,kn->mn":
        return None
    shown = {v.result for v in views if isinstance(v, t.View)}
    used = shown == {last.a, last.b} and loop.body.args == (last.acc,) and loop.body.results == (last.result,)
    return last if used else None


def _fits(row: Instruction, types: list[Type]) -> bool:
    acc, a, b = types
    if (acc.dtype, a.dtype, b.dtype) != (row.acc.dtype, row.a.dtype, row.b.dtype):
        return False
    (m, n), (_, depth) = acc.static_shape, a.static_shape
    warps = _warps(row)
    if row.executor == "warpgroup":
        return m % row.shape[0] == 0 and n == row.shape[1] and depth % row.shape[2] == 0
    # Two blocks of columns are loaded together, hence the factor 2.
    return m % (warps[0] * row.shape[0]) == 0 and n % (2 * warps[1] * row.shape[1]) == 0 and depth % row.shape[2] == 0


def _warps(row: Instruction) -> tuple[int, int]:
    return (4, 1) if row.executor == "warpgroup" else (2, 2)


def _fragments(row: Instruction) -> str:
    return "fragment({}x{})".format(*_warps(row))


def _views_fit(function: Function, loop: t.For, steps: Mapping[str, int]) -> bool:
    return all(_view_fits(function, view, steps) for view in loop.body.nodes if isinstance(view, t.View))


def _view_fits(function: Function, view: t.View, steps: Mapping[str, int]) -> bool:
    """True when rows are contiguous along the buffer's last axis and every 16 bytes are aligned and whole."""
    buffer = function.types[view.buffer]
    last = buffer.rank - 1
    inner, outer = view.axes[1], view.axes[0]
    extent = buffer.shape[last]
    if view.indices is not None or (inner.axis, inner.step) != (last, 1) or outer.axis in (last, -1):
        return False
    return isinstance(extent, int) and extent % CHUNK == 0 and _is_whole_chunks(view.offsets[last], steps)


def _is_whole_chunks(offset: Extent, steps: Mapping[str, int]) -> bool:
    if not isinstance(offset, Dim):
        return offset % CHUNK == 0
    for monomial, coefficient in terms_of(offset):
        scale = coefficient
        for atom, power in monomial:
            scale *= steps.get(atom.name, 1) ** power if not atom.function else 1
        if scale % CHUNK:
            return False
    return True


def _spread(function: Function, layouts: dict[int, str]) -> None:
    """Elementwise maps of a tile in fragments stay in fragments."""
    for node in function.walk():
        if isinstance(node, t.Map):
            shape = function.types[node.result].shape
            own = [layouts[o] for o in node.operands if o in layouts and function.types[o].shape == shape]
            if own:
                layouts[node.result] = own[0]
