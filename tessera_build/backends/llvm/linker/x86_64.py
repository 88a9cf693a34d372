"""Relocations of x86-64 (System V psABI, section 4.4).

Takes: the bytes of an input section and `Patch` records.
Gives: `X86_64`.
Invariant: every symbol is in the same image, so a load from the global offset table becomes `lea`, `call` or `jmp`
wherever the instruction allows it; the result is the same and the table entry is not needed.
"""

from tessera_build.backends.llvm.linker import elf
from tessera_build.backends.llvm.linker.architecture import Architecture, Need, Patch, store, unsupported
from tessera_build.backends.llvm.linker.errors import LinkError
from tessera_build.backends.llvm.linker.reader import Relocation

R_NONE, R_64, R_PC32, R_PLT32, R_GOTPCREL, R_RELATIVE = 0, 1, 2, 4, 9, 8
R_PC64, R_GOTPCRELX, R_REX_GOTPCRELX = 24, 41, 42

_NOT_PIC = "a 32-bit absolute address cannot be moved; compile with position-independent code"
_LARGE = "it belongs to the large code model; compile with the small one"
_THREAD_LOCAL = "thread-local storage is not supported"
_REFUSED = {
    10: ("R_X86_64_32", _NOT_PIC),
    11: ("R_X86_64_32S", _NOT_PIC),
    19: ("R_X86_64_TLSGD", _THREAD_LOCAL),
    20: ("R_X86_64_TLSLD", _THREAD_LOCAL),
    22: ("R_X86_64_GOTTPOFF", _THREAD_LOCAL),
    25: ("R_X86_64_GOTOFF64", _LARGE),
    26: ("R_X86_64_GOTPC32", _LARGE),
    29: ("R_X86_64_GOTPC64", _LARGE),
}

_MOV_LOAD, _LEA, _GROUP_5 = 0x8B, 0x8D, 0xFF
_CALL_INDIRECT, _JMP_INDIRECT = 0x15, 0x25  # ModRM bytes of `call *x(%rip)` and `jmp *x(%rip)`
_ADDRESS_PREFIX, _CALL, _JMP, _NOP = 0x67, 0xE8, 0xE9, 0x90


def _classify(relocation: Relocation, data: bytes) -> Need:
    match relocation.type:
        case 0 | 2 | 4 | 24:
            return Need.NOTHING
        case 1:
            return Need.RELATIVE
        case 9:
            return Need.SLOT
        case 41 | 42:
            return Need.NOTHING if _can_relax(relocation, data) else Need.SLOT
        case _:
            raise unsupported("x86-64", relocation.type, _REFUSED)


def _can_relax(relocation: Relocation, data: bytes) -> bool:
    if relocation.offset < 2 or relocation.addend != -4:
        return False
    opcode, modrm = data[relocation.offset - 2], data[relocation.offset - 1]
    if opcode == _MOV_LOAD:
        return True
    return relocation.type == R_GOTPCRELX and opcode == _GROUP_5 and modrm in (_CALL_INDIRECT, _JMP_INDIRECT)


def _apply(data: bytearray, patch: Patch) -> None:
    match patch.type:
        case 0:
            pass
        case 1:  # the loader overwrites it; the link-time value helps disassemblers
            store(data, patch.offset, patch.target + patch.addend, 8)
        case 2 | 4:
            store(data, patch.offset, patch.relative, 4)
        case 24:
            store(data, patch.offset, patch.relative, 8)
        case 9 | 41 | 42 if patch.slot:
            store(data, patch.offset, patch.slot + patch.addend - patch.place, 4)
        case 41 | 42:
            _relax(data, patch)
        case _:
            raise LinkError(f"x86-64 relocation {patch.type} was classified but cannot be applied")


def _relax(data: bytearray, patch: Patch) -> None:
    """Turn a load of an address into the address: `mov x@GOTPCREL(%rip), %r` becomes `lea x(%rip), %r`."""
    opcode, modrm = data[patch.offset - 2], data[patch.offset - 1]
    if opcode == _MOV_LOAD:
        data[patch.offset - 2] = _LEA
        store(data, patch.offset, patch.relative, 4)
    elif modrm == _CALL_INDIRECT:  # a meaningless prefix keeps the instruction six bytes long
        data[patch.offset - 2 : patch.offset] = bytes((_ADDRESS_PREFIX, _CALL))
        store(data, patch.offset, patch.relative, 4)
    else:  # the jump is one byte shorter, so its field moves back by one and a nop follows
        data[patch.offset - 2] = _JMP
        store(data, patch.offset - 1, patch.relative + 1, 4)
        data[patch.offset + 3] = _NOP


X86_64 = Architecture(
    name="x86-64",
    machine=elf.EM_X86_64,
    page_bytes=4096,
    relative_type=R_RELATIVE,
    padding=b"\xcc",
    classify=_classify,
    apply=_apply,
)
