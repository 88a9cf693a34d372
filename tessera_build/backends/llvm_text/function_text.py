"""The text of one LLVM function while it is written: instructions, blocks, declarations, metadata.

Takes instructions as text; gives `Value`s with fresh names. Invariant: names depend only on the order of calls, so
two kernels that do the same print the same, whatever their values were numbered before.
"""

from __future__ import annotations

from tessera_build.backends.llvm_text.types import Value, register_type, suffix
from tessera_build.ir.core.types import Type

_LOOP_OPTIONS = '!{!"llvm.loop.unroll.disable"}', '!{!"llvm.loop.vectorize.enable", i1 false}'


class FunctionText:
    """Lines of one function body, in order, with the declarations and metadata they need."""

    def __init__(self) -> None:
        self.block = "entry"
        self._lines: list[str] = []
        self._entry: list[str] = []
        self._tail: list[str] = []
        self._names = 0
        self._blocks = 0
        self._declarations: set[str] = set()
        self._metadata: list[str] = []
        self._shared: dict[str, str] = {}

    def name(self) -> str:
        """A fresh register name."""
        self._names += 1
        return f"%v{self._names}"

    def label(self, hint: str) -> str:
        """A fresh block name that starts with `hint`."""
        self._blocks += 1
        return f"{hint}{self._blocks}"

    def begin(self, label: str) -> None:
        """Start a block; the one before must have ended in a terminator."""
        self.block = label
        self._lines.append(f"{label}:")

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append(f"  {text}")

    def instruction(self, text: str, type_: Type, name: str | None = None) -> Value:
        """An instruction with a result of `type_`."""
        name = name or self.name()
        self._lines.append(f"  {name} = {text}")
        return Value(name, type_)

    def temporary(self, text: str) -> str:
        """An instruction whose result only this back end sees; gives its name."""
        name = self.name()
        self._lines.append(f"  {name} = {text}")
        return name

    def phi(self, type_: Type, incoming: tuple[Value, str]) -> tuple[Value, int]:
        """A loop's phi with one incoming edge; `close_phi` adds the other. Gives its value and where it stands."""
        value = Value(self.name(), type_)
        self._lines.append(f"  {value.text} = phi {register_type(type_)} [ {incoming[0].text}, %{incoming[1]} ]")
        return value, len(self._lines) - 1

    def close_phi(self, position: int, value: Value) -> None:
        """Add the edge from the current block to the phi at `position`."""
        self._lines[position] += f", [ {value.text}, %{self.block} ]"

    def entry_line(self, text: str) -> None:
        """An instruction of the entry block, whatever block is being written (stack slots)."""
        self._entry.append(f"  {text}")

    def tail(self, key: str, *lines: str) -> str:
        """A block at the end of the function, once for each key; gives its label."""
        if f"{key}:" not in self._tail:
            self._tail += [f"{key}:", *(f"  {text}" for text in lines)]
        return key

    def declare(self, declaration: str) -> None:
        """Declare a function, once."""
        self._declarations.add(declaration)

    def intrinsic(self, name: str, result: str, types: tuple[str, ...], arguments: tuple[str, ...]) -> str:
        """The call of an intrinsic (full name, LLVM result type) on typed arguments, after declaring it."""
        self.declare(f"declare {result} @{name}({', '.join(types)})")
        return f"call {result} @{name}({', '.join(arguments)})"

    def lane_intrinsic(self, base: str, *operands: Value) -> str:
        """The call of an intrinsic overloaded on one type, from values to a value of that type."""
        type_ = register_type(operands[0].type)
        arguments = tuple(operand.typed for operand in operands)
        return self.intrinsic(f"llvm.{base}.{suffix(type_)}", type_, (type_,) * len(operands), arguments)

    def shared_metadata(self, text: str) -> str:
        """The number of a metadata node, equal ones once."""
        if text not in self._shared:
            self._shared[text] = self._append_metadata(text)
        return self._shared[text]

    def loop_metadata(self) -> str:
        """A new loop's node: neither unrolled nor vectorised, because the schedule has already decided both."""
        options = ", ".join(self.shared_metadata(option) for option in _LOOP_OPTIONS)
        number = f"!{len(self._metadata)}"
        return self._append_metadata(f"distinct !{{{number}, {options}}}")

    def _append_metadata(self, text: str) -> str:
        self._metadata.append(text)
        return f"!{len(self._metadata) - 1}"

    def body(self) -> str:
        """The function's blocks."""
        return "\n".join(["entry:", *self._entry, *self._lines, *self._tail])

    def declarations(self) -> str:
        """Declarations in alphabetical order, so that the text does not depend on the order of first use."""
        return "".join(f"{text}\n" for text in sorted(self._declarations))

    def metadata(self) -> str:
        """The module's metadata nodes."""
        return "".join(f"!{index} = {text}\n" for index, text in enumerate(self._metadata))
