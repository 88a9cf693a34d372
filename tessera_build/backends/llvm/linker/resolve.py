"""Finds the definition behind every symbol.

Takes: the objects, in order, and the names to export.
Gives: `SymbolTable`: for (object, symbol index) a `Definition`, a place in one input section.
Invariant: resolution collects every fault (undefined, defined twice, missing export) before it raises, so that a person
sees the whole list once. A strong definition beats weak ones; among weak ones the first object wins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.errors import LinkError, quoted
from tessera_build.backends.llvm.linker.reader import ObjectFile, Section, Symbol


@dataclass(frozen=True, slots=True)
class Definition:
    """A place in section `section` of input object `position`."""

    position: int
    section: int
    value: int
    kind: int
    size: int


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """All definitions that other objects can see, and the objects to look local symbols up in."""

    objects: tuple[ObjectFile, ...]
    visible: dict[str, Definition]

    def definition(self, position: int, symbol_index: int) -> Definition:
        """The definition behind a symbol of one object. The symbol is known to be defined (see `resolve`)."""
        symbol = self.objects[position].symbols[symbol_index]
        if symbol.binding == elf.STB_LOCAL:
            return _definition(position, symbol)
        return self.visible[symbol.name]


def resolve(objects: Sequence[ObjectFile], exports: Sequence[str]) -> SymbolTable:
    """Match references with definitions. Raises `LinkError` naming all that do not match."""
    faults: list[str] = []
    table = SymbolTable(tuple(objects), _visible_definitions(objects, faults))
    users: dict[str, list[str]] = {}
    for position, section, symbol in _referenced(objects):
        if symbol.binding != elf.STB_LOCAL and symbol.name not in table.visible:
            users.setdefault(symbol.name, []).append(f"{objects[position].label} {section.name}")
        elif fault := _placement_fault(objects, table, position, symbol):
            faults.append(f"{fault} (used by {objects[position].label} {section.name})")
    if users:
        listing = "; ".join(f"`{name}` (used by {_brief(users[name])})" for name in sorted(users))
        faults.insert(0, f"undefined symbols: {listing}")
    missing = sorted(set(exports) - set(table.visible))
    if missing:
        faults.append(f"exports that no object defines: {quoted(missing)}")
    if faults:
        raise LinkError(
            "the objects do not form a self-contained shared object",
            found="; ".join(dict.fromkeys(faults)),
        )
    return table


def _visible_definitions(objects: Sequence[ObjectFile], faults: list[str]) -> dict[str, Definition]:
    visible: dict[str, Definition] = {}
    strong: dict[str, str] = {}
    for position, item in enumerate(objects):
        for symbol in item.symbols:
            if symbol.binding == elf.STB_LOCAL or symbol.section == elf.SHN_UNDEF:
                continue
            if symbol.binding == elf.STB_WEAK:
                visible.setdefault(symbol.name, _definition(position, symbol))
            elif symbol.name in strong:
                faults.append(f"`{symbol.name}` is defined in {strong[symbol.name]} and in {item.label}")
            else:
                strong[symbol.name] = item.label
                visible[symbol.name] = _definition(position, symbol)
    return visible


def _definition(position: int, symbol: Symbol) -> Definition:
    return Definition(position, symbol.section, symbol.value, symbol.kind, symbol.size)


def _referenced(objects: Sequence[ObjectFile]) -> Iterator[tuple[int, Section, Symbol]]:
    """Each (object, section, symbol) that some relocation of a kept section uses, once."""
    for position, item in enumerate(objects):
        for section in item.sections:
            if section is None:
                continue
            for index in dict.fromkeys(relocation.symbol for relocation in section.relocations):
                if index >= len(item.symbols):
                    raise LinkError("a relocation names a symbol that does not exist", where=item.label)
                if index:  # symbol 0 stands for "no symbol": only R_*_NONE uses it
                    yield position, section, item.symbols[index]


def _placement_fault(objects: Sequence[ObjectFile], table: SymbolTable, position: int, symbol: Symbol) -> str | None:
    """Why a found definition has no address in the result, or None when it has one."""
    found = _definition(position, symbol) if symbol.binding == elf.STB_LOCAL else table.visible[symbol.name]
    name = symbol.name or "a section"
    if found.kind in (elf.STT_TLS, elf.STT_GNU_IFUNC):
        return f"`{name}` is thread-local or chosen at load time, which is not supported"
    if found.section in (elf.SHN_ABS, elf.SHN_COMMON):
        return f"`{name}` is an absolute or common symbol, which is not supported"
    sections = objects[found.position].sections
    if found.section >= len(sections) or sections[found.section] is None:
        return f"`{name}` lies in a section that is not loaded"
    return None


def _brief(users: Sequence[str]) -> str:
    shown = ", ".join(users[:3])
    return shown if len(users) <= 3 else f"{shown} and {len(users) - 3} more"
