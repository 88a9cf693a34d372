"""The structure that every kernel's text has: constants, operations, lanes, loops, branches.

Takes Target IR nodes and a writer for what differs between machines (memory, checks, groups); gives LLVM IR text in a
`FunctionText`. Invariant: every node is either written here or by the machine's writer, or refused with its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.backends.llvm_text.function_text import FunctionText
from tessera_build.backends.llvm_text.operations import emit_operation
from tessera_build.backends.llvm_text.types import (
    Value,
    constant,
    element_type,
    lanes_of,
    register_type,
    scalar_constant,
    with_dtype,
)
from tessera_build.ir.core.node import Node, Region
from tessera_build.ir.core.types import I64, Type, scalar
from tessera_build.ir.target.kernel import Branch, Const, Extract, Insert, LaneIndex, Loop, Op, Shuffle, Splat


class MachineText(Protocol):
    """Writes the nodes that only one kind of machine has."""

    def write(self, text: KernelText, node: Node) -> bool:
        """Write `node` if it is one of these, and say so."""
        ...


class KernelText:
    """Walks the nodes; `values` maps value ids to what they became."""

    def __init__(self, types: Mapping[int, Type], machine: MachineText) -> None:
        self.out = FunctionText()
        self.types = types
        self.values: dict[int, Value] = {}
        self._machine = machine

    def block(self, nodes: tuple[Node, ...]) -> None:
        """Write nodes in order."""
        for node in nodes:
            self.node(node)

    def node(self, node: Node) -> None:
        """Write one node, and remember its result."""
        out, values = self.out, self.values
        match node:
            case Loop():
                self.loop(node)
            case Branch():
                self.branch(node)
            case Const():
                values[node.result] = constant(self.types[node.result], node.value)
            case Op():
                operands = tuple(values[operand] for operand in node.operands)
                values[node.result] = emit_operation(out, node.name, operands, self.types[node.result])
            case LaneIndex():
                values[node.result] = _lane_index(self.types[node.result])
            case Splat() | Extract() | Insert() | Shuffle():
                values[node.result] = self.lanes(node)
            case _:
                if not self._machine.write(self, node):
                    raise CompileError("a node that kernels do not have", found=type(node).__name__)

    def lanes(self, node: Splat | Extract | Insert | Shuffle) -> Value:
        """Movement between lanes."""
        type_ = self.types[node.result]
        match node:
            case Splat():
                return self.splat(self.values[node.operand], type_)
            case Extract():
                text = f"extractelement {self.values[node.operand].typed}, i64 {node.lane}"
            case Insert():
                vector, value = self.values[node.operand], self.values[node.value]
                text = f"insertelement {vector.typed}, {value.typed}, i64 {node.lane}"
            case Shuffle():
                left, right = self.values[node.left], self.values[node.right]
                lanes = ", ".join(f"i32 {lane}" for lane in node.lanes)
                text = f"shufflevector {left.typed}, {right.typed}, <{len(node.lanes)} x i32> <{lanes}>"
        return self.out.instruction(text, type_)

    def splat(self, value: Value, type_: Type) -> Value:
        """A scalar in every lane; a constant stays a constant."""
        if not value.text.startswith("%"):
            return Value(f"splat ({value.typed})", type_)
        vector, count = register_type(type_), lanes_of(type_)
        single = self.out.temporary(f"insertelement {vector} poison, {value.typed}, i64 0")
        mask = f"<{count} x i32> zeroinitializer"
        return self.out.instruction(f"shufflevector {vector} {single}, {vector} poison, {mask}", type_)

    def loop(self, node: Loop) -> None:
        """Head with the phis, body, exit; the results are the phis, which hold after the last iteration."""
        out = self.out
        head, body, after = out.label("head"), out.label("loop"), out.label("after")
        start, stop, before = self.values[node.start], self.values[node.stop], out.block
        initial = [self.values[value] for value in node.carried]
        out.line(f"br label %{head}")
        out.begin(head)
        phis = [out.phi(value.type, (value, before)) for value in (start, *initial)]
        index = phis[0][0]
        more = out.temporary(f"icmp slt i64 {index.text}, {stop.text}")
        out.line(f"br i1 {more}, label %{body}, label %{after}")
        out.begin(body)
        self.values.update(zip(node.body.args, (value for value, _ in phis), strict=True))
        self.block(node.body.nodes)
        following = out.instruction(f"add nsw i64 {index.text}, {node.step}", scalar(I64))
        carried = [self.values[value] for value in node.body.results]
        for (_, position), value in zip(phis, (following, *carried), strict=True):
            out.close_phi(position, value)
        out.line(f"br label %{head}, !llvm.loop {out.loop_metadata()}")
        out.begin(after)
        self.values.update(zip(node.results, (value for value, _ in phis[1:]), strict=True))

    def branch(self, node: Branch) -> None:
        """Two blocks that meet again; results are phis there."""
        out = self.out
        then, otherwise, join = out.label("then"), out.label("else"), out.label("join")
        out.line(f"br {self.values[node.condition].typed}, label %{then}, label %{otherwise}")
        left = self._arm(then, node.then, join)
        right = self._arm(otherwise, node.otherwise, join)
        out.begin(join)
        for position, result in enumerate(node.results):
            type_ = self.types[result]
            edges = ", ".join(f"[ {values[position].text}, %{block} ]" for values, block in (left, right))
            self.values[result] = out.instruction(f"phi {register_type(type_)} {edges}", type_)

    def _arm(self, label: str, region: Region, join: str) -> tuple[list[Value], str]:
        self.out.begin(label)
        self.block(region.nodes)
        ends = self.out.block
        self.out.line(f"br label %{join}")
        return [self.values[value] for value in region.results], ends


def _lane_index(type_: Type) -> Value:
    element = element_type(type_.dtype)
    lanes = ", ".join(f"{element} {scalar_constant(type_.dtype, lane)}" for lane in range(lanes_of(type_)))
    return Value(f"<{lanes}>", with_dtype(type_, type_.dtype))
