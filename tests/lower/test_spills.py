"""No register is spilled in an innermost loop that multiplies and adds, for the shapes of the benchmark models.

The assembly is that of the kernels that a build for x86-64-v4 would contain, and one for x86-64-v3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.objects import CodegenOptions, assembly
from tessera_build.config import load_target
from tessera_build.driver.machine import machine_of
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.lower.program.assemble import lower_module
from tests.lower.execution import AVX512

_OPTIONS = CodegenOptions("x86_64-unknown-linux-gnu", "x86-64-v4")
_SPILL = re.compile(r"%[xyz]mm\d+, -?\d*\(%r[sb]p\)|-?\d*\(%r[sb]p\), %[xyz]mm\d+")


def _product(rows: int, depth: int, columns: int) -> Module:
    b = GraphBuilder()
    y = b.op("matmul", b.input("x", tensor(F32, rows, depth)), b.constant(np.ones((depth, columns), np.float32)))
    y = b.op("add", y, b.constant(np.ones(columns, np.float32)))
    half = b.op("mul", y, b.scalar(0.5, F32))
    b.output("y", b.op("mul", half, b.op("add", b.op("erf", half), b.scalar(1.0, F32))))
    return b.finish()


def _convolution(size: int, channels: int, out: int, kernel: int, groups: int = 1, stride: int = 1) -> Module:
    b, side = GraphBuilder(), (kernel // 2, kernel // 2)
    x = b.op("mul", b.input("x", tensor(F32, 1, size, size, channels)), b.scalar(1.5, F32))
    w = b.constant(np.ones((out, channels // groups, kernel, kernel), np.float32))
    steps = {"strides": (stride, stride), "dilations": (1, 1)}
    y = b.op("conv", x, w, groups=groups, layout="NHWC", low=side, high=side, **steps)
    b.output("y", b.op("max", b.op("add", y, b.constant(np.ones(out, np.float32))), b.scalar(0.0, F32)))
    return b.finish()


def _attention(queries: int, keys: int) -> Module:
    b = GraphBuilder()
    q = b.input("q", tensor(F32, 1, 12, queries, 64))
    k, v = (b.input(n, tensor(F32, 1, 12, keys, 64)) for n in "kv")
    b.output("y", b.op("attention", q, k, v, scale=0.125))
    return b.finish()


MODULES: dict[str, Callable[[], Module]] = {
    "BERT's projections": lambda: _product(128, 768, 768),
    "BERT's feed-forward, in": lambda: _product(128, 768, 3072),
    "BERT's feed-forward, out": lambda: _product(128, 3072, 768),
    "1024 cubed": lambda: _product(1024, 1024, 1024),
    "GPT-2, one token": lambda: _product(1, 768, 3072),
    "1x1 at 56": lambda: _convolution(56, 256, 64, 1),
    "1x1 at 7": lambda: _convolution(7, 2048, 512, 1),
    "3x3 at 14": lambda: _convolution(14, 256, 256, 3),
    "7x7 from three channels": lambda: _convolution(224, 3, 64, 7, stride=2),
    "3x3 from three channels": lambda: _convolution(224, 3, 32, 3, stride=2),
    "1x1 to half a register": lambda: _convolution(56, 144, 24, 1),
    "depthwise": lambda: _convolution(28, 144, 144, 3, 144),
    "BERT's attention": lambda: _attention(128, 128),
    "attention over many keys": lambda: _attention(40, 520),
    "GPT-2's attention": lambda: _attention(1, 129),
}


def innermost_loops(text: str) -> list[str]:
    """The bodies of loops without another inside: from a label to the jump back to it."""
    lines = text.splitlines()
    labels = {line.split(":")[0]: i for i, line in enumerate(lines) if line.startswith(".LBB")}
    found: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        jump = re.match(r"\s+j\w+\s+(\.LBB\w+)", line)
        if jump and labels.get(jump[1], i) < i:
            found.append((labels[jump[1]], i))
    inner = [(a, z) for a, z in found if not any(a <= b and y <= z and (a, z) != (b, y) for b, y in found)]
    return ["\n".join(lines[a : z + 1]) for a, z in inner]


@pytest.mark.parametrize("name", MODULES)
def test_inner_loops_when_compiled_then_none_that_multiplies_spills(name: str) -> None:
    kernels = lower_module(MODULES[name](), AVX512).variant.kernels
    texts = [assembly(kernel_ir(kernel, _OPTIONS, "kernel"), _OPTIONS) for kernel in kernels]
    loops = [loop for text in texts for loop in innermost_loops(text) if loop.count("vfm") + loop.count("vmulps") > 0]
    assert loops
    for loop in loops:
        assert not _SPILL.findall(loop), loop


@pytest.mark.parametrize("name", ["BERT's projections", "BERT's feed-forward, in", "1024 cubed", "1x1 at 56"])
def test_inner_loops_when_terms_are_taken_in_pairs_then_none_spills_and_rows_are_operands_in_memory(name: str) -> None:
    kernels = lower_module(MODULES[name](), replace(AVX512, adds_apart=True)).variant.kernels
    texts = [assembly(kernel_ir(kernel, _OPTIONS, "kernel"), _OPTIONS) for kernel in kernels]
    loops = [loop for text in texts for loop in innermost_loops(text) if loop.count("vfnm")]
    assert loops
    for loop in loops:
        assert not _SPILL.findall(loop), loop
        pairs = loop.count("vfnm")
        assert loop.count("{1to16}") >= 6 * pairs  # of x, y and z, in a pair of sums and one of differences


# What is left there: of attention's exponentials, which wait for no register; of the sums along the depth of two keys.
_LEFT = {"BERT's attention": 52, "GPT-2's attention": 4}


@pytest.mark.parametrize("name", MODULES)
def test_inner_loops_when_there_are_sixteen_registers_then_none_but_attention_spills(name: str) -> None:
    options = CodegenOptions("x86_64-unknown-linux-gnu", "x86-64-v3")
    kernels = lower_module(MODULES[name](), machine_of(load_target("x86-64-v3"))).variant.kernels
    texts = [assembly(kernel_ir(kernel, options, "kernel"), options) for kernel in kernels]
    loops = [loop for text in texts for loop in innermost_loops(text) if loop.count("vfm") + loop.count("vmulps") > 0]
    assert loops
    assert sum(len(_SPILL.findall(loop)) for loop in loops) <= _LEFT.get(name, 0)


def test_innermost_loops_when_one_lies_in_another_then_only_it_is_found() -> None:
    text = ".LBB0_1:\n\tinc %rax\n.LBB0_2:\n\tvmovups %zmm1, 64(%rsp)\n\tjne\t.LBB0_2\n\tjne\t.LBB0_1\n"
    (loop,) = innermost_loops(text)
    assert _SPILL.search(loop)
    assert "inc" not in loop
