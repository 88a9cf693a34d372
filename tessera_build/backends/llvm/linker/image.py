"""Writes the file: headers, generated tables, patched sections.

Takes: the layout, the finished tables and the patched input sections, all by key.
Gives: the bytes of the shared object.
Invariant: segments are R, RX and RW, never writable and executable, and the stack is not executable. Section headers
are written for tools (objdump, perf, gdb); the loader does not read them.
"""

from collections.abc import Mapping

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.architecture import Architecture
from tessera_build.backends.llvm.linker.layout import CODE_SEGMENT, READ_SEGMENT, WRITE_SEGMENT, Extent, Key, Layout
from tessera_build.backends.llvm.linker.tables import StringTable

_FLAGS = {READ_SEGMENT: elf.PF_R, CODE_SEGMENT: elf.PF_R | elf.PF_X, WRITE_SEGMENT: elf.PF_R | elf.PF_W}
PROGRAM_HEADER_COUNT = 5  # three segments, PT_DYNAMIC, PT_GNU_STACK
HEADER_BYTES = elf.FILE_HEADER.size + PROGRAM_HEADER_COUNT * elf.PROGRAM_HEADER.size

# name: type, flags, entry size, and the section that `sh_link` names
_SECTIONS: dict[str, tuple[int, int, int, str]] = {
    ".dynsym": (elf.SHT_DYNSYM, elf.SHF_ALLOC, elf.SYMBOL.size, ".dynstr"),
    ".hash": (elf.SHT_HASH, elf.SHF_ALLOC, 4, ".dynsym"),
    ".rela.dyn": (elf.SHT_RELA, elf.SHF_ALLOC, elf.RELOCATION.size, ".dynsym"),
    ".dynstr": (elf.SHT_STRTAB, elf.SHF_ALLOC, 0, ""),
    ".rodata": (elf.SHT_PROGBITS, elf.SHF_ALLOC, 0, ""),
    ".text": (elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_EXECINSTR, 0, ""),
    ".dynamic": (elf.SHT_DYNAMIC, elf.SHF_ALLOC | elf.SHF_WRITE, elf.DYNAMIC_ENTRY.size, ".dynstr"),
    ".got": (elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, 8, ""),
    ".data": (elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_WRITE, 0, ""),
    ".bss": (elf.SHT_NOBITS, elf.SHF_ALLOC | elf.SHF_WRITE, 0, ""),
}


def section_numbers(layout: Layout) -> dict[str, int]:
    """The row of each output section in the section header table (row 0 is empty by definition)."""
    return {name: number for number, name in enumerate((name for name in _SECTIONS if name in layout.sections), 1)}


def write_image(layout: Layout, contents: Mapping[Key, bytes | bytearray], architecture: Architecture) -> bytes:
    """Put everything in its place. `contents` has the bytes of each piece that is in the file."""
    image = bytearray(layout.file_bytes)
    if code := layout.segments.get(CODE_SEGMENT):
        fill = architecture.padding * (code.file_bytes // len(architecture.padding) + 1)
        image[code.offset : code.offset + code.file_bytes] = fill[: code.file_bytes]
    for key, content in contents.items():
        place = layout.pieces[key].offset
        image[place : place + len(content)] = content
    headers, names = _section_headers(layout)
    table_offset = elf.aligned(layout.file_bytes + len(names), 8)
    header = _file_header(architecture.machine, table_offset, len(headers) // elf.SECTION_HEADER.size)
    header += _program_headers(layout, architecture.page_bytes)
    image[: len(header)] = header
    return bytes(image) + names + bytes(table_offset - layout.file_bytes - len(names)) + headers


def _file_header(machine: int, section_table: int, section_count: int) -> bytes:
    return elf.FILE_HEADER.pack(
        elf.MAGIC,
        elf.ET_DYN,
        machine,
        1,  # version
        0,  # no entry point
        elf.FILE_HEADER.size,
        section_table,
        0,  # flags
        elf.FILE_HEADER.size,
        elf.PROGRAM_HEADER.size,
        PROGRAM_HEADER_COUNT,
        elf.SECTION_HEADER.size,
        section_count,
        section_count - 1,
    )


def _program_headers(layout: Layout, page_bytes: int) -> bytes:
    rows: list[bytes] = []
    for number, extent in sorted(layout.segments.items()):
        rows.append(_program_header(elf.PT_LOAD, _FLAGS[number], extent, page_bytes))
    rows.append(_program_header(elf.PT_DYNAMIC, elf.PF_R | elf.PF_W, layout.sections[".dynamic"], 8))
    rows.append(_program_header(elf.PT_GNU_STACK, elf.PF_R | elf.PF_W, Extent(0, 0, 0, 0, 0), 16))
    return b"".join(rows).ljust(PROGRAM_HEADER_COUNT * elf.PROGRAM_HEADER.size, b"\0")  # all zero is PT_NULL


def _program_header(kind: int, flags: int, extent: Extent, alignment: int) -> bytes:
    address = extent.address
    return elf.PROGRAM_HEADER.pack(
        kind, flags, extent.offset, address, address, extent.file_bytes, extent.memory_bytes, alignment
    )


def _section_headers(layout: Layout) -> tuple[bytes, bytes]:
    """The section header table and the strings that it names."""
    numbers = section_numbers(layout)
    names = StringTable([*numbers, ".shstrtab"])
    rows = [bytes(elf.SECTION_HEADER.size)]
    for name in numbers:
        kind, flags, entry_bytes, link = _SECTIONS[name]
        extent = layout.sections[name]
        information = 1 if kind == elf.SHT_DYNSYM else 0  # the number of local symbols: only the empty one
        rows.append(
            elf.SECTION_HEADER.pack(
                names.offsets[name],
                kind,
                flags,
                extent.address,
                extent.offset,
                extent.memory_bytes,
                numbers.get(link, 0),
                information,
                extent.alignment,
                entry_bytes,
            )
        )
    name_row = (names.offsets[".shstrtab"], elf.SHT_STRTAB, 0, 0, layout.file_bytes, len(names.content), 0, 0, 1, 0)
    rows.append(elf.SECTION_HEADER.pack(*name_row))
    return b"".join(rows), names.content
