"""bf16 products on NVIDIA's matrix units: bound by the machine's table, simulated by lanes, assembled, disassembled.

No GPU takes part: docs/device-checks.md lists what waits for one.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tessera_build.backends.cuda.ptx import assemble_cubin, compile_ptx
from tessera_build.backends.llvm_text.errors import CompileError
from tessera_build.ir.machine.instructions import INSTRUCTIONS
from tessera_build.ir.target.text import parse_function, print_function
from tessera_build.ir.tile.erase import strip_bindings
from tessera_build.ir.tile.nodes import Contract, For
from tessera_build.ir.tile.reference import run
from tessera_build.ir.tile.spec import verify
from tessera_build.lower.tile_to_target.simt import lower_group
from tests.cuda.products import TARGETS, bound, lowered, unbound
from tests.cuda.simulator import simulate


def sass(cubin: bytes, folder: Path) -> str:
    (folder / "kernel.cubin").write_bytes(cubin)
    spec = importlib.util.find_spec("nvidia")
    assert spec is not None
    found = [p for root in spec.submodule_search_locations or () for p in Path(root).glob("*/bin/nvdisasm")]
    if not found:
        pytest.skip("no nvdisasm: pip install '.[ptxas]'")
    command = [str(found[0]), str(folder / "kernel.cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.unit
@pytest.mark.parametrize("name", TARGETS)
def test_product_when_bound_then_uses_the_matrix_unit_and_copies_ahead(name: str) -> None:
    target = TARGETS[name]
    function = bound(target, unbound(target, 512, 1024))
    verify(function, INSTRUCTIONS)
    (contract,) = (n for n in function.walk() if isinstance(n, Contract))
    assert contract.binding is not None
    row = INSTRUCTIONS[contract.binding.instruction or ""]
    assert row.executor == {"sm_80": "warp", "sm_90": "warpgroup"}[name]
    stages = [n.binding.stage for n in function.walk() if isinstance(n, For) and n.binding and n.binding.stage]
    assert stages == [target.machine.async_stages]
    assert lowered(target).shared_bytes <= target.machine.shared_bytes


@pytest.mark.unit
@pytest.mark.parametrize("name", TARGETS)
def test_product_when_rows_are_not_whole_chunks_then_keeps_to_lanes(name: str) -> None:
    target = TARGETS[name]
    function = bound(target, unbound(target, 500, 1023))
    (contract,) = (n for n in function.walk() if isinstance(n, Contract))
    assert contract.binding is not None
    assert contract.binding.instruction == "fma.1x1x1"


@pytest.mark.numerics
@pytest.mark.parametrize("name", TARGETS)
def test_product_when_simulated_then_agrees_with_reference_at_ragged_edges(name: str) -> None:
    """200 rows, 136 columns and 72 products leave the last tile of every axis ragged."""
    target = TARGETS[name]
    function = unbound(target, 136, 72)
    kernel = lower_group(bound(target, function), target.machine.lanes)
    random = np.random.default_rng(0)
    a = random.standard_normal((200, 72)).astype(ml_dtypes.bfloat16)
    b = random.standard_normal((72, 136)).astype(ml_dtypes.bfloat16)
    result = np.full((200, 136), np.nan, np.float32)
    simulate(kernel, [a, b, result], {"m": 200})
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(result, exact, rtol=0, atol=2e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("name", TARGETS)
def test_binding_when_erased_then_reference_is_bitwise_the_same(name: str) -> None:
    target = TARGETS[name]
    function = unbound(target, 24, 72)
    random = np.random.default_rng(1)
    inputs = [random.standard_normal(s).astype(ml_dtypes.bfloat16) for s in ((20, 72), (72, 24))]
    results: list[np.ndarray] = []
    for version in (bound(target, function), strip_bindings(bound(target, function))):
        results.append(np.zeros((20, 24), np.float32))
        run(version, [*inputs, results[-1]], {"m": 20})
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.unit
@pytest.mark.parametrize("name", TARGETS)
def test_kernel_when_printed_and_parsed_then_prints_the_same(name: str) -> None:
    text = print_function(lowered(TARGETS[name]).kernel)
    assert print_function(parse_function(text)) == text


@pytest.mark.cuda
@pytest.mark.parametrize("name", TARGETS)
def test_product_when_assembled_then_sass_holds_matrix_instructions_and_no_spill(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    ptx = compile_ptx(lowered(target).kernel, target.processor)
    words = Counter(word.split(".")[0] for word in sass(assemble_cubin(ptx, target.processor), tmp_path).split())
    assert words[target.instruction] >= 8
    assert words["LDGSTS"] > 0
    assert words["LDSM"] == {"sm_80": 16, "sm_90": 0}[name]
    assert words["STL"] == words["LDL"] == 0


@pytest.mark.cuda
def test_cubin_when_made_twice_then_bytes_are_equal() -> None:
    kernel = lowered(TARGETS["sm_80"]).kernel
    first, second = (assemble_cubin(compile_ptx(kernel, "sm_80"), "sm_80") for _ in range(2))
    assert first == second


@pytest.mark.errors
def test_ptx_when_processor_is_unknown_then_refuses_before_llvm_sees_it() -> None:
    with pytest.raises(CompileError, match="sm_81"):
        compile_ptx(lowered(TARGETS["sm_80"]).kernel, "sm_81")
