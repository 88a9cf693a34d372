"""Modules compiled by the whole path below the graph passes and called in this process, for comparisons of bits.

Takes a module and a machine's vector facts; gives a function from inputs to outputs. Invariant: the code that runs is
what a build for this machine would put into a bundle, but for the number of lanes that the test asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bundle_format.digest import Digest
from bundle_format.schema import Tool
from bundle_format.writer import Variant
from tessera_build.backends.interface import Work
from tessera_build.backends.llvm.variant import LlvmBackend
from tessera_build.bundler import Parts, make_variant
from tessera_build.config import load_precision, load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.ir.graph import reference as graph_reference
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import Chooser, derived
from tessera_build.verify.execute import CompiledProgram


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled module; `variant` can be loaded with any number of threads."""

    module: Module
    variant: Variant

    def run(self, inputs: Mapping[str, Array], sizes: Mapping[str, int], threads: int = 1) -> dict[str, Array]:
        """The outputs of the entry `main` by name."""
        return CompiledProgram(self.variant, threads).run("main", inputs, sizes)


def compile_module(module: Module, machine: CpuMachine | None = None, choose: Chooser = derived) -> Compiled:
    """Lower for `machine` (by default this one) and compile for the processor the test runs on."""
    config, backend = load_target("native"), LlvmBackend()
    lowered = lower_module(module, machine or machine_of(config), choose=choose)
    built = backend.build(lowered.variant, options_of(config, backend.tools()), Work(workers=1))
    parts = Parts(
        module=module,
        lowered=lowered,
        code=built.code,
        symbols=dict(built.symbols),
        target=config,
        precision=load_precision("fp32"),
        producer=Tool("tests", "0"),
        tools=(),
        sources={"model": Digest.of(b"test")},
        levels=("graph", "schedule", "tile"),
    )
    return Compiled(module, make_variant(parts))


def check_module(
    module: Module,
    inputs: Mapping[str, Array],
    sizes: Mapping[str, int],
    machine: CpuMachine | None = None,
    choose: Chooser = derived,
) -> dict[str, Array]:
    """Compile, run with one and two threads (equal bits), compare with the Graph reference; gives the outputs."""
    expected = graph_reference.run(module, "main", dict(inputs))
    compiled = compile_module(module, machine, choose)
    outputs = compiled.run(inputs, sizes)
    again = compiled.run(inputs, sizes, threads=2)
    for name, array in outputs.items():
        assert array.tobytes() == again[name].tobytes(), f"{name}: two threads give other bits than one"
        assert_close(array, expected[name], name)
    return outputs


def assert_close(found: Array, expected: Array, name: str, tolerance: float = 5e-5) -> None:
    """Equal shape and type; integers and truth values equal, floats within `tolerance` of the largest value."""
    assert found.shape == expected.shape, name
    assert found.dtype == expected.dtype, name
    if not np.issubdtype(expected.dtype, np.floating):
        np.testing.assert_array_equal(found, expected, err_msg=name)
        return
    numbers, wanted = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isfinite(numbers), finite, err_msg=name)
    np.testing.assert_array_equal(numbers[~finite], wanted[~finite], err_msg=name)
    scale = max(float(np.abs(wanted[finite]).max()), 1e-6) if finite.any() else 1.0
    np.testing.assert_allclose(numbers[finite], wanted[finite], rtol=0, atol=tolerance * scale, err_msg=name)
