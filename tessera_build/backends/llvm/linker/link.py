"""Relocatable objects in, one shared object out.

Takes: ELF64 objects of one processor, the names to export and the library's own name.
Gives: the bytes of an ET_DYN file without undefined symbols, which `dlopen` maps as it is.
Invariant: the bytes are a function of the arguments; order of exports does not matter, order of objects does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tessera_build.backends.llvm.linker import elf, image, tables
from tessera_build.backends.llvm.linker.aarch64 import AARCH64
from tessera_build.backends.llvm.linker.architecture import Architecture, Need, Patch
from tessera_build.backends.llvm.linker.errors import LinkError
from tessera_build.backends.llvm.linker.layout import (
    CODE_SEGMENT,
    READ_SEGMENT,
    WRITE_SEGMENT,
    Key,
    Layout,
    Piece,
    lay_out,
)
from tessera_build.backends.llvm.linker.reader import ObjectFile, Relocation, Section, SectionKind, read_object
from tessera_build.backends.llvm.linker.resolve import Definition, SymbolTable, resolve
from tessera_build.backends.llvm.linker.x86_64 import X86_64

_ARCHITECTURES = {architecture.machine: architecture for architecture in (X86_64, AARCH64)}
_SEGMENTS = {
    SectionKind.READ: READ_SEGMENT,
    SectionKind.CODE: CODE_SEGMENT,
    SectionKind.DATA: WRITE_SEGMENT,
    SectionKind.ZERO: WRITE_SEGMENT,
}
_CODE_ALIGNMENT = 64  # a cache line: each object's code starts on its own


@dataclass(frozen=True, slots=True)
class _Use:
    """One relocation of a kept section with its target found and its need known."""

    key: tuple[int, int]
    relocation: Relocation
    target: Definition
    need: Need


@dataclass(frozen=True, slots=True)
class _Program:
    """Everything known before addresses: the inputs, their uses of each other, and the table entries they need."""

    architecture: Architecture
    objects: tuple[ObjectFile, ...]
    symbols: SymbolTable
    uses: tuple[_Use, ...]
    slots: tuple[Definition, ...]

    @property
    def relative_count(self) -> int:
        """How many relocations are left to the loader."""
        return len(self.slots) + sum(use.need is Need.RELATIVE for use in self.uses)


def link(objects: Sequence[bytes], exports: Sequence[str], soname: str) -> bytes:
    """Link `objects` into a shared object called `soname` that exports exactly `exports`.

    Raises `LinkError`: a damaged or foreign object, undefined or doubly defined symbols (all of them are listed),
    exports that are not defined, relocations that need a fixed address.
    """
    program = _gather(objects, exports)
    names = sorted(set(exports))
    strings = tables.StringTable([*names, soname])
    layout = lay_out(_pieces(program, names, strings), program.architecture.page_bytes)
    sections, relative = _patch(program, layout)
    rows = [_export(name, program, layout) for name in names]
    contents: dict[Key, bytes | bytearray] = {
        **sections,
        ".dynsym": tables.symbol_table(rows, strings),
        ".dynstr": strings.content,
        ".hash": tables.hash_table(names),
        ".rela.dyn": tables.relocation_table(relative, program.architecture.relative_type),
        ".dynamic": tables.dynamic_table(layout, strings.offsets[soname], len(strings.content), len(relative)),
        ".got": b"".join(_address(layout, slot).to_bytes(8, "little") for slot in program.slots),
    }
    present = {key: content for key, content in contents.items() if key in layout.pieces}
    return image.write_image(layout, present, program.architecture)


def _gather(blobs: Sequence[bytes], exports: Sequence[str]) -> _Program:
    objects = tuple(read_object(blob, position) for position, blob in enumerate(blobs))
    machines = {item.machine for item in objects}
    if len(machines) != 1 or not machines <= _ARCHITECTURES.keys():
        raise LinkError("the objects are not all of one known processor", found=f"machine numbers {sorted(machines)}")
    architecture = _ARCHITECTURES[machines.pop()]
    symbols = resolve(objects, exports)
    uses = tuple(_uses(architecture, objects, symbols))
    slots = tuple(dict.fromkeys(use.target for use in uses if use.need is Need.SLOT))
    return _Program(architecture, objects, symbols, uses, slots)


def _kept(objects: Sequence[ObjectFile]) -> Iterator[tuple[tuple[int, int], Section]]:
    """Input sections that reach the result. An empty one does only when something is defined in it."""
    for position, item in enumerate(objects):
        named = {symbol.section for symbol in item.symbols if symbol.kind != elf.STT_SECTION}
        for index, section in enumerate(item.sections):
            if section is not None and (section.size or index in named):
                yield (position, index), section


def _uses(architecture: Architecture, objects: Sequence[ObjectFile], symbols: SymbolTable) -> Iterator[_Use]:
    for key, section in _kept(objects):
        for relocation in section.relocations:
            where = f"{objects[key[0]].label} {section.name}+{relocation.offset:#x}"
            if relocation.offset >= len(section.data) or (relocation.symbol == 0 and relocation.type != 0):
                raise LinkError("a relocation lies outside its section or names no symbol", where=where)
            try:
                need = architecture.classify(relocation, section.data)
            except LinkError as error:
                name = objects[key[0]].symbols[relocation.symbol].name
                raise LinkError(error.message, where=where, found=f"symbol `{name}`") from error
            if relocation.symbol == 0:
                continue
            if need is Need.RELATIVE and section.kind is not SectionKind.DATA:
                raise LinkError("an absolute address lies in memory that is never writable", where=where)
            yield _Use(key, relocation, symbols.definition(key[0], relocation.symbol), need)


def _pieces(program: _Program, names: Sequence[str], strings: tables.StringTable) -> list[Piece]:
    """All pieces in file order: read-only, code, written, zero."""
    generated = [
        Piece("header", "header", READ_SEGMENT, 64, image.HEADER_BYTES),
        Piece(".dynsym", ".dynsym", READ_SEGMENT, 8, (len(names) + 1) * elf.SYMBOL.size),
        Piece(".hash", ".hash", READ_SEGMENT, 8, len(tables.hash_table(names))),
        Piece(".rela.dyn", ".rela.dyn", READ_SEGMENT, 8, program.relative_count * elf.RELOCATION.size),
        Piece(".dynstr", ".dynstr", READ_SEGMENT, 1, len(strings.content)),
    ]
    dynamic = [
        Piece(".dynamic", ".dynamic", WRITE_SEGMENT, 16, tables.dynamic_bytes(program.relative_count)),
        Piece(".got", ".got", WRITE_SEGMENT, 8, len(program.slots) * 8),
    ]
    inputs = {
        kind: [_piece(key, section) for key, section in _kept(program.objects) if section.kind is kind]
        for kind in SectionKind
    }
    readable = [*_present(generated), *inputs[SectionKind.READ], *inputs[SectionKind.CODE]]
    return [*readable, *_present(dynamic), *inputs[SectionKind.DATA], *inputs[SectionKind.ZERO]]


def _present(pieces: Sequence[Piece]) -> list[Piece]:
    return [piece for piece in pieces if piece.size]


def _piece(key: tuple[int, int], section: Section) -> Piece:
    alignment = max(section.alignment, _CODE_ALIGNMENT if section.kind is SectionKind.CODE else 1)
    in_file = section.kind is not SectionKind.ZERO
    return Piece(key, section.kind.value, _SEGMENTS[section.kind], alignment, section.size, in_file)


def _address(layout: Layout, definition: Definition) -> int:
    key = (definition.position, definition.section)
    return layout.pieces[key].address + definition.value


def _patch(program: _Program, layout: Layout) -> tuple[dict[tuple[int, int], bytearray], list[tuple[int, int]]]:
    """The patched input sections, and the (place, target) pairs that are left to the loader."""
    contents = {key: bytearray(section.data) for key, section in _kept(program.objects) if section.data}
    slot_address = {slot: layout.pieces[".got"].address + 8 * number for number, slot in enumerate(program.slots)}
    relative = [(slot_address[slot], _address(layout, slot)) for slot in program.slots]
    for use in program.uses:
        place = layout.pieces[use.key].address + use.relocation.offset
        target, addend = _address(layout, use.target), use.relocation.addend
        if use.need is Need.RELATIVE:
            relative.append((place, target + addend))
        slot = slot_address[use.target] if use.need is Need.SLOT else 0
        patch = Patch(use.relocation.offset, use.relocation.type, place, target, addend, slot)
        program.architecture.apply(contents[use.key], patch)
    return contents, relative


def _export(name: str, program: _Program, layout: Layout) -> tables.Export:
    definition = program.symbols.visible[name]
    section = program.objects[definition.position].sections[definition.section]
    if section is None:
        raise LinkError("an exported symbol lies in a section that is not loaded", where=name)
    header = image.section_numbers(layout)[section.kind.value]
    return tables.Export(name, definition.kind, definition.size, _address(layout, definition), header)
