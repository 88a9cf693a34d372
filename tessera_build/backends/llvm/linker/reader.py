"""Reads one relocatable ELF64 object into records.

Takes: the bytes of an object file and its position among the inputs.
Gives: `ObjectFile`: the sections that a running program needs, their relocations, and the symbol table.
Invariant: only sections that are loaded are kept; unwind tables, notes, comments and debug information are not, and
anything that needs code to run at load time (constructors, thread-local storage) is refused here.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.errors import LinkError

_LOAD_TIME_TYPES = (elf.SHT_INIT_ARRAY, elf.SHT_FINI_ARRAY, elf.SHT_PREINIT_ARRAY)


class SectionKind(Enum):
    """The part of the shared object that a section belongs to; the value is the output section's name."""

    READ = ".rodata"
    CODE = ".text"
    DATA = ".data"
    ZERO = ".bss"


@dataclass(frozen=True, slots=True)
class Relocation:
    """One place to patch: `type` is the processor's number, `symbol` indexes the object's symbol table."""

    offset: int
    type: int
    symbol: int
    addend: int


@dataclass(frozen=True, slots=True)
class Section:
    """A loaded section. `data` is empty for `ZERO`."""

    name: str
    kind: SectionKind
    alignment: int
    size: int
    data: bytes
    relocations: tuple[Relocation, ...]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A row of the symbol table; `section` is an index into the object's sections or one of the SHN_ numbers."""

    name: str
    binding: int
    kind: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """One input. `sections` has the indices of the file; a section that is not kept is None."""

    label: str
    machine: int
    sections: tuple[Section | None, ...]
    symbols: tuple[Symbol, ...]


@dataclass(frozen=True, slots=True)
class _Header:
    """A row of the section header table."""

    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


def read_object(data: bytes, position: int) -> ObjectFile:
    """Parse an object file. Raises `LinkError` on anything that is not a well-formed ELF64 relocatable object."""
    label = f"object {position}"
    try:
        return _read(data, label)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise LinkError("the object file is damaged", where=label, found=str(error)) from error


def _read(data: bytes, label: str) -> ObjectFile:
    ident, kind, machine, _, _, _, table, _, _, _, _, entry_size, count, names = elf.FILE_HEADER.unpack_from(data)
    if ident[:7] != elf.MAGIC[:7] or kind != elf.ET_REL or entry_size != elf.SECTION_HEADER.size:
        raise LinkError("not a relocatable 64-bit little-endian ELF object", where=label)
    headers = _read_headers(data, table, count, names)
    relocations = {
        header.info: _read_relocations(data, header, label) for header in headers if _has_relocations(header)
    }
    sections = tuple(
        _read_section(data, header, relocations.get(index, ()), label) for index, header in enumerate(headers)
    )
    return ObjectFile(label, machine, sections, _read_symbols(data, headers))


def _read_headers(data: bytes, table: int, count: int, names: int) -> list[_Header]:
    if table == 0:
        return []
    if count == 0 or names == elf.SHN_XINDEX:  # more than 65279 sections: the true numbers are in row 0
        _, _, _, _, _, true_count, true_names, _, _, _ = elf.SECTION_HEADER.unpack_from(data, table)
        count, names = count or true_count, true_names if names == elf.SHN_XINDEX else names
    step = elf.SECTION_HEADER.size
    rows = [elf.SECTION_HEADER.unpack_from(data, table + index * step) for index in range(count)]
    strings = _slice(data, rows[names][4], rows[names][5])
    return [
        _Header(_string(strings, name), kind, flags, offset, size, link, info, max(alignment, 1))
        for name, kind, flags, _, offset, size, link, info, alignment, _ in rows
    ]


def _has_relocations(header: _Header) -> bool:
    return header.type in (elf.SHT_RELA, elf.SHT_REL)


def _read_relocations(data: bytes, header: _Header, label: str) -> tuple[Relocation, ...]:
    if header.type == elf.SHT_REL:
        raise LinkError("relocations without addends are not used by these processors", where=f"{label} {header.name}")
    rows = elf.RELOCATION.iter_unpack(_slice(data, header.offset, header.size))
    return tuple(Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend) for offset, info, addend in rows)


def _read_section(data: bytes, header: _Header, relocations: tuple[Relocation, ...], label: str) -> Section | None:
    if not _is_kept(header):
        return None
    where = f"{label} {header.name}"
    if header.flags & elf.SHF_TLS:
        raise LinkError("thread-local storage is not supported", where=where)
    if header.type in _LOAD_TIME_TYPES or header.name.startswith((".ctors", ".dtors")):
        raise LinkError("code that runs at load time is not supported", where=where)
    if header.alignment & (header.alignment - 1):
        raise LinkError("an alignment is not a power of two", where=where, found=str(header.alignment))
    kind = _kind(header)
    content = b"" if kind is SectionKind.ZERO else _slice(data, header.offset, header.size)
    return Section(header.name, kind, header.alignment, header.size, content, relocations)


def _is_kept(header: _Header) -> bool:
    if not header.flags & elf.SHF_ALLOC or header.type in (elf.SHT_NOTE, elf.SHT_X86_64_UNWIND):
        return False
    return not header.name.startswith((".eh_frame", ".note", ".comment"))


def _kind(header: _Header) -> SectionKind:
    if header.flags & elf.SHF_EXECINSTR:
        if header.flags & elf.SHF_WRITE:
            raise LinkError("a section is both writable and executable", where=header.name)
        return SectionKind.CODE
    if not header.flags & elf.SHF_WRITE:
        return SectionKind.READ
    return SectionKind.ZERO if header.type == elf.SHT_NOBITS else SectionKind.DATA


def _read_symbols(data: bytes, headers: list[_Header]) -> tuple[Symbol, ...]:
    tables = [header for header in headers if header.type == elf.SHT_SYMTAB]
    if not tables:
        return ()
    strings = _slice(data, headers[tables[0].link].offset, headers[tables[0].link].size)
    wide = _wide_indices(data, headers)
    symbols: list[Symbol] = []
    rows = elf.SYMBOL.iter_unpack(_slice(data, tables[0].offset, tables[0].size))
    for index, (name, info, _, section, value, size) in enumerate(rows):
        place = wide[index] if section == elf.SHN_XINDEX else section
        symbols.append(Symbol(_string(strings, name), info >> 4, info & 15, place, value, size))
    return tuple(symbols)


def _wide_indices(data: bytes, headers: list[_Header]) -> tuple[int, ...]:
    """Section indices above 65279, which do not fit a symbol's own 16-bit field."""
    for header in headers:
        if header.type == elf.SHT_SYMTAB_SHNDX:
            content = _slice(data, header.offset, header.size)
            return tuple(int.from_bytes(content[start : start + 4], "little") for start in range(0, len(content), 4))
    return ()


def _slice(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise ValueError(f"{size} bytes at {offset} reach beyond the end ({len(data)})")
    return data[offset : offset + size]


def _string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(0, offset)].decode()
