"""Builds the tables that a dynamic loader reads: symbols, strings, hash, relocations, dynamic entries.

Takes: the exported names with their addresses, and a finished layout.
Gives: the bytes of each table; their sizes depend only on counts and names, so the layout can ask for them first.
Invariant: symbols appear sorted by name; nothing depends on the order in which exports were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.layout import Layout


@dataclass(frozen=True, slots=True)
class Export:
    """A symbol of the result; `section_header` is the row of its section in the section header table."""

    name: str
    kind: int
    size: int
    address: int
    section_header: int


class StringTable:
    """NUL-terminated strings, each stored once, addressed by offset."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.offsets: dict[str, int] = {"": 0}
        content = bytearray(1)
        for text in strings:
            if text not in self.offsets:
                self.offsets[text] = len(content)
                content += text.encode() + b"\0"
        self.content = bytes(content)


def symbol_table(exports: Sequence[Export], strings: StringTable) -> bytes:
    """`.dynsym`: the empty symbol, then one global symbol an export."""
    rows = [bytes(elf.SYMBOL.size)]
    for export in exports:
        info = elf.STB_GLOBAL << 4 | export.kind
        name = strings.offsets[export.name]
        rows.append(elf.SYMBOL.pack(name, info, 0, export.section_header, export.address, export.size))
    return b"".join(rows)


def hash_table(names: Sequence[str]) -> bytes:
    """`.hash` (System V ABI): as many buckets as names. Symbol numbers start at 1."""
    bucket_count = max(1, len(names))
    buckets, chains = [0] * bucket_count, [0] * (len(names) + 1)
    for number in range(len(names), 0, -1):
        bucket = elf.symbol_hash(names[number - 1]) % bucket_count
        chains[number], buckets[bucket] = buckets[bucket], number
    words = [bucket_count, len(names) + 1, *buckets, *chains]
    return b"".join(word.to_bytes(4, "little") for word in words)


def relocation_table(relative: Sequence[tuple[int, int]], relative_type: int) -> bytes:
    """`.rela.dyn`: (place, target) pairs, each meaning "store base + target at base + place", sorted by place."""
    return b"".join(elf.RELOCATION.pack(place, relative_type, target) for place, target in sorted(relative))


def dynamic_table(layout: Layout, soname_offset: int, string_bytes: int, relocation_count: int) -> bytes:
    """`.dynamic`. The number of rows depends only on whether there are relocations."""
    address = {name: extent.address for name, extent in layout.sections.items()}
    rows = [
        (elf.DT_SONAME, soname_offset),
        (elf.DT_HASH, address[".hash"]),
        (elf.DT_STRTAB, address[".dynstr"]),
        (elf.DT_SYMTAB, address[".dynsym"]),
        (elf.DT_STRSZ, string_bytes),
        (elf.DT_SYMENT, elf.SYMBOL.size),
    ]
    if relocation_count:
        rows += [
            (elf.DT_RELA, address[".rela.dyn"]),
            (elf.DT_RELASZ, relocation_count * elf.RELOCATION.size),
            (elf.DT_RELAENT, elf.RELOCATION.size),
            (elf.DT_RELACOUNT, relocation_count),
        ]
    rows.append((elf.DT_NULL, 0))
    return b"".join(elf.DYNAMIC_ENTRY.pack(tag, value) for tag, value in rows)


def dynamic_bytes(relocation_count: int) -> int:
    """The size of `dynamic_table`'s result."""
    return elf.DYNAMIC_ENTRY.size * (11 if relocation_count else 7)
