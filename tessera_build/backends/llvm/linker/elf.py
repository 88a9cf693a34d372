"""The numbers of the ELF64 format that the linker reads and writes, and nothing else of it.

Takes: nothing.
Gives: constants under the names of the specification (System V ABI, chapters 4 and 5) and `Struct` packers.
Invariant: little endian and 64 bits everywhere; both processors that we link for use that form.
"""

from struct import Struct

MAGIC = b"\x7fELF\x02\x01\x01\x00" + bytes(8)  # 64-bit, little endian, version 1, System V

ET_REL, ET_DYN = 1, 3
EM_X86_64, EM_AARCH64 = 62, 183

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 4, 5, 6, 7, 8
SHT_REL, SHT_DYNSYM = 9, 11
SHT_INIT_ARRAY, SHT_FINI_ARRAY, SHT_PREINIT_ARRAY, SHT_SYMTAB_SHNDX = 14, 15, 16, 18
SHT_X86_64_UNWIND = 0x70000001
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_INFO_LINK, SHF_TLS = 1, 2, 4, 0x40, 0x400

SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS, STT_GNU_IFUNC = 0, 1, 2, 3, 4, 6, 10

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4

DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT = 0, 4, 5, 6, 7, 8, 9
DT_STRSZ, DT_SYMENT, DT_SONAME, DT_RELACOUNT = 10, 11, 14, 0x6FFFFFF9

FILE_HEADER = Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = Struct("<IIQQQQQQ")
SECTION_HEADER = Struct("<IIQQQQIIQQ")
SYMBOL = Struct("<IBBHQQ")
RELOCATION = Struct("<QQq")
DYNAMIC_ENTRY = Struct("<qQ")


def symbol_hash(name: str) -> int:
    """The hash function of DT_HASH (System V ABI, "Hash Table")."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def aligned(position: int, alignment: int) -> int:
    """The next multiple of `alignment` (a power of two) at or after `position`."""
    return (position + alignment - 1) & -alignment
