"""The C ABI from the other side: the header compiles, its structs are those of ctypes, a C program gets our bytes."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bundle_format import media
from bundle_format.abi import Status, header_bytes
from bundle_format.reader import open_bundle
from bundle_format.schema import ABI_VERSION
from tessera_runtime import Model
from tessera_runtime.cpu.abi import Call, ErrorRecord, Plan, Services
from tests.runtime.conftest import compile_c
from tests.runtime.sample import SCALE, SHIFT

STRUCTS = {"services": Services, "error": ErrorRecord, "call": Call, "plan": Plan}


def c_facts(folder: Path) -> list[str]:
    """Sizes, offsets and constants as the C compiler has them."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "tessera_model.h"', "int main(void) {"]
    for name, struct in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(tessera_{name}));')
        members = (field[0] for field in struct._fields_)
        lines += [f'printf("{name}.{m} %zu\\n", offsetof(tessera_{name}, {m}));' for m in members]
    lines += [f'printf("{status.name} %d\\n", TESSERA_{status.name});' for status in Status]
    lines += ['printf("version %d\\n", TESSERA_ABI_VERSION);', "return 0; }"]
    (folder / "facts.c").write_text("\n".join(lines))
    compile_c(folder / "facts", str(folder / "facts.c"))
    return subprocess.run([str(folder / "facts")], capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.unit
def test_header_when_compiled_then_agrees_with_python(tmp_path: Path) -> None:
    expected: list[str] = []
    for name, struct in STRUCTS.items():
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        expected += [f"{name}.{field[0]} {getattr(struct, field[0]).offset}" for field in struct._fields_]
    expected += [f"{status.name} {status.value}" for status in Status]
    expected.append(f"version {ABI_VERSION}")
    assert c_facts(tmp_path) == expected
    assert (ctypes.sizeof(Services), ctypes.sizeof(Call)) == (128, 72)


@pytest.mark.unit
def test_header_when_taken_from_a_bundle_then_is_ours(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        (header,) = opened.variants[0].layers(media.C_HEADER)
        assert bytes(opened.read(header)) == header_bytes()


@pytest.mark.numerics
@pytest.mark.parametrize("threads", [1, 3])
def test_c_program_when_it_runs_the_object_then_gets_the_bytes_of_python(
    library: Path, model: Model, tmp_path: Path, threads: int
) -> None:
    compile_c(tmp_path / "host", "host.c", "-ldl", "-lpthread")
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    for name, values in (("scale", SCALE), ("shift", SHIFT), ("x", x)):
        (tmp_path / name).write_bytes(values.tobytes())
    files = ["scale", "shift", "--", "x", "--", f"y:{x.nbytes}", "last:8"]
    subprocess.run([str(tmp_path / "host"), str(library), "0", str(threads), "50", *files], cwd=tmp_path, check=True)
    expected = model.run(x=x)
    assert (tmp_path / "y").read_bytes() == expected["y"].tobytes()
    assert (tmp_path / "last").read_bytes() == expected["last"].tobytes()


@pytest.mark.errors
def test_c_program_when_the_object_refuses_then_gets_the_status(library: Path, tmp_path: Path) -> None:
    compile_c(tmp_path / "host", "host.c", "-ldl", "-lpthread")
    command = [str(tmp_path / "host"), str(library), "0", "1", "2000", "--", "--"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"status {Status.GUARD_FAILED} at node -1\n")
