"""One tile program, many machines: only bindings differ, and the numbers agree.

The tolerance against the reference covers exp alone, which numpy and our polynomial round differently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tessera_build.backends.cuda.ptx import assemble_cubin, compile_ptx
from tessera_build.ir.machine.group import SM_80
from tessera_build.ir.machine.instructions import INSTRUCTIONS
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.reference import run
from tessera_build.ir.tile.spec import verify
from tessera_build.ir.tile.text import print_function
from tessera_build.lower.tile_to_target.bind_group import BindGroup
from tessera_build.lower.tile_to_target.simt import lower_group
from tests.neutrality.machines import BINDINGS, run_as_spirv, run_natively
from tests.neutrality.programs import PROGRAMS, Array

pytestmark = pytest.mark.numerics


def same_bits(left: Array, right: Array) -> bool:
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


def assert_agrees(result: Array, expected: Array, *, exact: bool) -> None:
    assert np.isfinite(expected).all()
    if exact:
        assert same_bits(result, expected)
    np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("machine", BINDINGS)
def test_binding_when_erased_then_program_and_result_are_as_before(name: str, machine: str) -> None:
    program = PROGRAMS[name]()
    verify(program.function)
    bound = BINDINGS[machine](program.function)
    verify(bound, INSTRUCTIONS)
    assert print_function(bound) != print_function(program.function)
    assert print_function(strip_bindings(bound)) == print_function(program.function)
    buffers = program.buffers()
    run(bound, buffers, program.dims)
    assert same_bits(buffers[-1], program.reference())


@pytest.mark.spirv
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_when_run_as_spirv_then_agrees_with_reference(name: str) -> None:
    program = PROGRAMS[name]()
    assert_agrees(run_as_spirv(program), program.reference(), exact=program.exact)


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_when_run_on_avx_512_then_agrees_with_reference(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]()
    assert_agrees(run_natively(program, tmp_path), program.reference(), exact=program.exact)


@pytest.mark.spirv
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_when_run_on_both_machines_then_bits_agree(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]()
    assert same_bits(run_as_spirv(program), run_natively(program, tmp_path))


@pytest.mark.cuda
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_when_lowered_for_nvidia_then_ptxas_takes_it(name: str) -> None:
    bound = BindGroup(SM_80).run(PROGRAMS[name]().function)
    ptx = compile_ptx(lower_group(bound, SM_80.lanes).kernel, "sm_80")
    assert assemble_cubin(ptx, "sm_80").startswith(b"\x7fELF")
