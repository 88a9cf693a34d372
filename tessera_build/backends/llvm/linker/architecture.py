"""What the linker must know about a processor.

Takes: nothing; `x86_64.py` and `aarch64.py` each build one `Architecture`.
Gives: `Architecture`, `Patch` (one relocation with every address known) and `Need`.
Invariant: `classify` looks only at the relocation and the instruction bytes, never at addresses, so that the sizes of
all tables are known before anything is placed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from tessera_build.backends.llvm.linker.errors import LinkError
from tessera_build.backends.llvm.linker.reader import Relocation


class Need(Enum):
    """What a relocation asks of the shared object beside the patch itself."""

    NOTHING = "resolved while linking"
    RELATIVE = "an absolute address: the loader adds the base"
    SLOT = "an entry of the global offset table"


@dataclass(frozen=True, slots=True)
class Patch:
    """One relocation to apply. `target` is the symbol's address, `slot` the address of its table entry (0: none)."""

    offset: int
    type: int
    place: int
    target: int
    addend: int
    slot: int

    @property
    def relative(self) -> int:
        """The distance that nearly every relocation stores: S + A - P."""
        return self.target + self.addend - self.place


@dataclass(frozen=True, slots=True)
class Architecture:
    """`page_bytes` is the largest page of the processor; `padding` fills the gaps between pieces of code."""

    name: str
    machine: int
    page_bytes: int
    relative_type: int
    padding: bytes
    classify: Callable[[Relocation, bytes], Need]
    apply: Callable[[bytearray, Patch], None]


def store(data: bytearray, offset: int, value: int, size: int, *, signed: bool = True) -> None:
    """Write a field, refusing a value that does not fit and a field that reaches beyond the section."""
    if offset + size > len(data):
        raise LinkError("a relocation reaches beyond its section", found=f"{size} bytes at {offset:#x}")
    try:
        data[offset : offset + size] = value.to_bytes(size, "little", signed=signed)
    except OverflowError as error:
        raise LinkError(f"a {8 * size}-bit relocation does not reach its target", found=hex(value)) from error


def unsupported(processor: str, type_number: int, refused: Mapping[int, tuple[str, str]]) -> LinkError:
    """The refusal of a relocation, with its name and, where we know it, the likely cause."""
    name, reason = refused.get(type_number, (f"number {type_number}", "the linker does not know it"))
    return LinkError(f"{processor} relocation {name} cannot be resolved: {reason}")
