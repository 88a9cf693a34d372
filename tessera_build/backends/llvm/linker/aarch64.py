"""Relocations of AArch64 (ELF for the Arm 64-bit Architecture, section 5.7).

Takes: the bytes of an input section and `Patch` records.
Gives: `AARCH64`.
Invariant: no veneers: a branch that does not reach its target (128 MB) is refused, never stretched.
"""

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.architecture import Architecture, Need, Patch, store, unsupported
from tessera_build.backends.llvm.linker.errors import LinkError
from tessera_build.backends.llvm.linker.reader import Relocation

R_NONE, R_ABS64, R_PREL64, R_PREL32, R_RELATIVE = 0, 257, 260, 261, 1027
R_ADR_PREL_LO21, R_ADR_PREL_PG_HI21, R_ADD_ABS_LO12 = 274, 275, 277
R_TSTBR14, R_CONDBR19, R_JUMP26, R_CALL26 = 279, 280, 282, 283
R_ADR_GOT_PAGE, R_LD64_GOT_LO12 = 311, 312

_LOAD_STORE_SHIFT = {278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # LDST8 … LDST128: the field counts units of 2^shift bytes
_BRANCH_FIELD = {R_TSTBR14: (5, 14), R_CONDBR19: (5, 19), R_JUMP26: (0, 26), R_CALL26: (0, 26)}  # position, width
_PLAIN = {R_NONE, R_PREL64, R_PREL32, R_ADR_PREL_LO21, R_ADR_PREL_PG_HI21, R_ADD_ABS_LO12}
_RESOLVED = _PLAIN | set(_LOAD_STORE_SHIFT) | set(_BRANCH_FIELD)
_REFUSED = {
    258: ("R_AARCH64_ABS32", "a 32-bit absolute address cannot be moved"),
    263: ("R_AARCH64_MOVW_UABS_G0", "it belongs to the large code model; compile with the small one"),
    269: ("R_AARCH64_MOVW_UABS_G3", "it belongs to the large code model; compile with the small one"),
}
_PAGE = 4096  # the unit of ADRP, whatever the page size of the machine


def _classify(relocation: Relocation, _: bytes) -> Need:
    if relocation.type in _RESOLVED:
        return Need.NOTHING
    if relocation.type == R_ABS64:
        return Need.RELATIVE
    if relocation.type in (R_ADR_GOT_PAGE, R_LD64_GOT_LO12):
        return Need.SLOT
    raise unsupported("AArch64", relocation.type, _REFUSED)


def _apply(data: bytearray, patch: Patch) -> None:
    absolute = patch.target + patch.addend
    match patch.type:
        case 0:
            pass
        case 257:
            store(data, patch.offset, absolute, 8)
        case 260:
            store(data, patch.offset, patch.relative, 8)
        case 261:
            store(data, patch.offset, patch.relative, 4)
        case 274:
            _store_split(data, patch.offset, patch.relative)
        case 275:
            _store_split(data, patch.offset, _pages_between(absolute, patch.place))
        case 277:
            _store_field(data, patch.offset, 10, 12, absolute % _PAGE)
        case 311:
            _store_split(data, patch.offset, _pages_between(patch.slot + patch.addend, patch.place))
        case 312:
            _store_field(data, patch.offset, 10, 12, (patch.slot + patch.addend) % _PAGE >> 3)
        case 278 | 284 | 285 | 286 | 299:
            _store_scaled(data, patch.offset, absolute % _PAGE, _LOAD_STORE_SHIFT[patch.type])
        case _:
            _store_branch(data, patch)


def _pages_between(target: int, place: int) -> int:
    return (target & -_PAGE) - (place & -_PAGE) >> 12


def _store_field(data: bytearray, offset: int, position: int, width: int, value: int) -> None:
    """Replace `width` bits of the 32-bit instruction; `value` is already known to fit."""
    word = int.from_bytes(data[offset : offset + 4], "little")
    mask = (1 << width) - 1 << position
    store(data, offset, word & ~mask | value << position & mask, 4, signed=False)


def _store_split(data: bytearray, offset: int, value: int) -> None:
    """The 21-bit field of ADR and ADRP: two low bits at 29, nineteen high bits at 5."""
    _check_reach(value, 21)
    _store_field(data, offset, 29, 2, value & 3)
    _store_field(data, offset, 5, 19, value >> 2)


def _store_scaled(data: bytearray, offset: int, low: int, shift: int) -> None:
    if low & (1 << shift) - 1:
        raise LinkError(f"an AArch64 access of {1 << shift} bytes is not aligned", found=hex(low))
    _store_field(data, offset, 10, 12, low >> shift)


def _store_branch(data: bytearray, patch: Patch) -> None:
    position, width = _BRANCH_FIELD[patch.type]
    if patch.relative & 3:
        raise LinkError("an AArch64 branch target is not a multiple of 4", found=hex(patch.relative))
    _check_reach(patch.relative >> 2, width)
    _store_field(data, patch.offset, position, width, patch.relative >> 2)


def _check_reach(value: int, width: int) -> None:
    if not -(1 << width - 1) <= value < 1 << width - 1:
        raise LinkError(f"a {width}-bit AArch64 relocation does not reach its target", found=hex(value))


AARCH64 = Architecture(
    name="AArch64",
    machine=elf.EM_AARCH64,
    page_bytes=65536,
    relative_type=R_RELATIVE,
    padding=bytes(4),
    classify=_classify,
    apply=_apply,
)
