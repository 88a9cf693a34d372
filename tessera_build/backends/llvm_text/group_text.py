"""Kernels of group machines as LLVM IR text: address spaces, lanes, shared memory, barriers.

Takes a group kernel of Target IR and a `Dialect` (how one family spells what LLVM has no common word for); gives a
module. Invariant: one lane's control flow may branch around its own loads and stores, never around a barrier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from tessera_build.backends.llvm_text.elements import from_memory, to_memory
from tessera_build.backends.llvm_text.kernel_text import KernelText
from tessera_build.backends.llvm_text.types import Value, constant, memory_element, memory_type, register_type
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.target.group import Barrier, GroupIndex, Lane, SharedAlloc
from tessera_build.ir.target.kernel import Load, Store

GLOBAL, SHARED = 1, 3


class Dialect(Protocol):
    """What differs between families of group machines."""

    triple: str
    convention: str

    def group_index(self, text: GroupText) -> str:
        """Instructions that give the group's number as i64; gives the register."""
        ...

    def lane(self, text: GroupText) -> str:
        """The same for the lane's number."""
        ...

    def barrier(self, text: GroupText) -> None:
        """Write a barrier of the group for shared and global memory."""
        ...

    def shared(self, text: GroupText, node: SharedAlloc) -> str:
        """The address of memory that the group shares; declares it in `text.globals`."""
        ...

    def write(self, text: GroupText, node: Node) -> bool:
        """Write a node that only this family has, and say whether it is one."""
        ...

    def attributes(self, text: GroupText, lanes: int) -> str:
        """What follows the parameters in the kernel's definition."""
        ...


@dataclass(slots=True)
class GroupText:
    """One module being written."""

    dialect: Dialect
    text: KernelText = field(init=False)
    spaces: dict[int, int] = field(default_factory=dict[int, int])
    globals: list[str] = field(default_factory=list[str])
    function: Function = field(init=False)

    def module(self, function: Function) -> str:
        """The module of one kernel, exported by its own name."""
        self.text, self.function = KernelText(function.types, self), function
        parameters = [self._parameter(argument) for argument in function.args]
        self.text.block(function.nodes)
        out = self.text.out
        out.line("ret void")
        lanes = function.attributes.get("lanes")
        attributes = self.dialect.attributes(self, lanes if isinstance(lanes, int) else 1)
        return (
            f'target triple = "{self.dialect.triple}"\n'
            f"{''.join(self.globals)}"
            f"define {self.dialect.convention} void @{function.name}({', '.join(parameters)}) {attributes} {{\n"
            f"{out.body()}\n}}\n"
            f"{out.declarations()}"
            f"{out.metadata()}"
        )

    def _parameter(self, argument: int) -> str:
        text = self.text
        value = Value(text.out.name(), text.types[argument])
        text.values[argument] = value
        if value.type.container != "memref":
            return value.typed
        self.spaces[argument] = GLOBAL
        return f"ptr addrspace({GLOBAL}) noalias {value.text}"

    def write(self, text: KernelText, node: Node) -> bool:
        """Write the nodes that kernels of groups have beyond the common structure."""
        values = text.values
        match node:
            case Load():
                values[node.result] = self._load(node)
            case Store():
                self._store(node)
            case GroupIndex():
                values[node.result] = Value(self.dialect.group_index(self), text.types[node.result])
            case Lane():
                values[node.result] = Value(self.dialect.lane(self), text.types[node.result])
            case Barrier():
                self.dialect.barrier(self)
            case SharedAlloc():
                self.spaces[node.result] = SHARED
                values[node.result] = Value(self.dialect.shared(self, node), text.types[node.result])
            case _:
                return self.dialect.write(self, node)
        return True

    def address(self, pointer: int, index: int) -> str:
        """The typed address of an element: `ptr addrspace(1) %v7`."""
        base, space = self.text.values[pointer], f"ptr addrspace({self.spaces[pointer]})"
        element = memory_element(base.type.dtype)
        offset = self.text.values[index]
        return f"{space} {self.text.out.temporary(f'getelementptr {element}, {space} {base.text}, {offset.typed}')}"

    def _load(self, node: Load) -> Value:
        out, kind = self.text.out, self.text.types[node.result]
        alignment = node.alignment or kind.dtype.bytes
        if node.mask is None:
            address = self.address(node.pointer, node.index)
            return from_memory(out, out.temporary(f"load {memory_type(kind)}, {address}, align {alignment}"), kind)
        other = self.text.values[node.other] if node.other is not None else constant(kind, 0)
        before, then, join = out.block, out.label("inside"), out.label("loaded")
        out.line(f"br {self.text.values[node.mask].typed}, label %{then}, label %{join}")
        out.begin(then)
        address = self.address(node.pointer, node.index)
        value = from_memory(out, out.temporary(f"load {memory_type(kind)}, {address}, align {alignment}"), kind)
        out.line(f"br label %{join}")
        out.begin(join)
        return out.instruction(
            f"phi {register_type(kind)} [ {value.text}, %{then} ], [ {other.text}, %{before} ]", kind
        )

    def _store(self, node: Store) -> None:
        out, value = self.text.out, to_memory(self.text.out, self.text.values[node.value])
        alignment = node.alignment or value.dtype.bytes
        if node.mask is None:
            out.line(f"store {value.typed}, {self.address(node.pointer, node.index)}, align {alignment}")
            return
        then, join = out.label("inside"), out.label("stored")
        out.line(f"br {self.text.values[node.mask].typed}, label %{then}, label %{join}")
        out.begin(then)
        out.line(f"store {value.typed}, {self.address(node.pointer, node.index)}, align {alignment}")
        out.line(f"br label %{join}")
        out.begin(join)
