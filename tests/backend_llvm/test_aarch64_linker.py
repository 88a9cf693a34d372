"""AArch64 relocations: the encodings by hand, and a whole image in an emulator where one is installed."""

import pytest

from tessera_build.backends.llvm.linker import LinkError, link
from tessera_build.backends.llvm.linker import aarch64 as relocations
from tessera_build.backends.llvm.linker.aarch64 import AARCH64 as PROCESSOR
from tessera_build.backends.llvm.linker.architecture import Patch
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import compile_ir
from tests.backend_llvm.harness import AARCH64, dynamic_symbols, program_headers
from tests.backend_llvm.test_linker import EXPORTS, HOST, KERNELS


@pytest.mark.parametrize(
    ("kind", "instruction", "place", "target", "addend", "expected"),
    [
        (relocations.R_CALL26, 0x94000000, 0x1000, 0x2000, 0, 0x94000400),  # bl +0x1000
        (relocations.R_JUMP26, 0x14000000, 0x2000, 0x1FFC, 0, 0x17FFFFFF),  # b -4
        (relocations.R_CONDBR19, 0x54000000, 0x1000, 0x1010, 0, 0x54000080),  # b.eq +16
        (relocations.R_TSTBR14, 0x36000000, 0x1000, 0x0FF8, 0, 0x3607FFC0),  # tbz w0, #0, -8
        (relocations.R_ADR_PREL_PG_HI21, 0x90000000, 0x1234, 0x5678, 0, 0x90000020),  # adrp x0, +4 pages
        (relocations.R_ADR_PREL_PG_HI21, 0x90000000, 0x5000, 0x4FFF, 0, 0xF0FFFFE0),  # adrp x0, -1 page
        (relocations.R_ADR_PREL_LO21, 0x10000000, 0x1000, 0x1006, 0, 0x50000020),  # adr x0, +6
        (relocations.R_ADD_ABS_LO12, 0x91000000, 0, 0x5670, 8, 0x9119E000),  # add x0, x0, #0x678
        (286, 0xF9400000, 0, 0x5678, 0, 0xF9433C00),  # ldr x0, [x0, #0x678]
        (299, 0x3DC00000, 0, 0x5670, 0, 0x3DC19C00),  # ldr q0, [x0, #0x670]
        (relocations.R_PREL32, 0, 0x2000, 0x1000, -4, 0xFFFFEFFC),
    ],
)
def test_apply_when_given_an_address_then_the_instruction_is_encoded(
    kind: int, instruction: int, place: int, target: int, addend: int, expected: int
) -> None:
    data = bytearray(instruction.to_bytes(4, "little"))
    PROCESSOR.apply(data, Patch(0, kind, place, target, addend, 0))
    assert data.hex() == expected.to_bytes(4, "little").hex()


@pytest.mark.parametrize(
    ("kind", "target"),
    [(relocations.R_CALL26, 1 << 28), (relocations.R_CALL26, 6), (relocations.R_CONDBR19, 1 << 21), (286, 0x101)],
)
def test_apply_when_the_target_cannot_be_encoded_then_refused(kind: int, target: int) -> None:
    with pytest.raises(LinkError):
        PROCESSOR.apply(bytearray(4), Patch(0, kind, 0, target, 0, 0))


def arm_library() -> bytes:
    return link([compile_ir(text, AARCH64) for text in (HOST, KERNELS, MEMORY_IR)], EXPORTS, "libtest.so")


def test_link_when_objects_are_aarch64_then_segments_fit_any_page_size() -> None:
    loads = [row for row in program_headers(arm_library()) if row[0] == 1]
    assert [row[1] for row in loads] == [4, 5, 6]
    assert all(offset % 65536 == address % 65536 for _, _, offset, address, _, _ in loads)
    pages = [set(range(row[3] // 65536, (row[3] + row[5] - 1) // 65536 + 1)) for row in loads]
    assert not pages[0] & pages[1] | pages[1] & pages[2]


def test_link_when_emulated_on_aarch64_then_answers_are_right() -> None:
    unicorn = pytest.importorskip("unicorn")
    constants = pytest.importorskip("unicorn.arm64_const")
    library, base, stop = arm_library(), 0x40000000, 0x7F0000
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    machine.mem_map(base, 1 << 20)
    machine.mem_map(stop, 1 << 16)
    for kind, _, offset, address, stored, _ in program_headers(library):
        if kind == 1:
            machine.mem_write(base + address, library[offset : offset + stored])
    for place, target in relative_relocations(library):
        machine.mem_write(base + place, (base + target).to_bytes(8, "little"))
    symbols = dynamic_symbols(library)

    def call(name: str, *arguments: int) -> int:
        machine.reg_write(constants.UC_ARM64_REG_SP, stop + 0x8000)
        machine.reg_write(constants.UC_ARM64_REG_LR, stop)
        for number, value in enumerate(arguments):
            machine.reg_write(constants.UC_ARM64_REG_X0 + number, value)
        machine.emu_start(base + symbols[name][1], stop)
        return machine.reg_read(constants.UC_ARM64_REG_X0)

    for scale in (2, 5):
        call("tessera_set_scale", scale)
        answers = [call("tessera_run", which, 40, 3) & 0xFFFFFFFF for which in range(3)]
        assert answers == [40 + 3 + 1001, 40 + 11 * scale + 1001, (40 ^ 85) - 3 + 1001]
    assert call("tessera_calls") == 6
    assert bytes(machine.mem_read(call("tessera_name"), 16)) == b"tessera kernels\0"


def relative_relocations(library: bytes) -> list[tuple[int, int]]:
    """(place, target) of each R_AARCH64_RELATIVE, found through PT_DYNAMIC."""
    _, _, offset, _, size, _ = next(row for row in program_headers(library) if row[0] == 2)
    words = [int.from_bytes(library[at : at + 8], "little") for at in range(offset, offset + size, 8)]
    entries = dict(zip(words[::2], words[1::2], strict=True))
    table = library[entries[7] : entries[7] + entries[8]]  # in the first segment an address is a file offset
    rows = [
        [int.from_bytes(table[at + field : at + field + 8], "little") for field in (0, 8, 16)]
        for at in range(0, len(table), 24)
    ]
    assert all(kind == 1027 for _, kind, _ in rows)
    return [(place, target) for place, _, target in rows]
