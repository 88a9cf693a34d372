"""A model's gradient entry, built as a bundle of its own.

Takes an ONNX file; gives a module whose only entry computes outputs and gradients, and the bundle that it became.
Invariant: the build is the driver's, stage by stage, and its proof the one that any build has where it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from bundle_format.digest import Digest
from bundle_format.schema import Tool
from bundle_format.writer import write_bundle
from tessera_build import __version__
from tessera_build.backends.interface import Work
from tessera_build.backends.llvm.cache import default_cache
from tessera_build.backends.llvm.variant import LlvmBackend
from tessera_build.bundler import Parts, make_variant
from tessera_build.config import load_precision, load_target
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.types import dtype_of
from tessera_build.ir.graph.autodiff.entries import with_grad
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.lower.program.assemble import lower_module
from tessera_build.verify.check import expected_answers, verify_variant
from tessera_build.verify.subject import Subject

GRADIENT = "main_grad"


@dataclass(frozen=True, slots=True)
class Differentiated:
    """The module with one entry, and the inputs and constants that it is differentiated by."""

    module: Module
    wrt: tuple[str, ...]


def differentiated(path: Path, without: Container[str]) -> Differentiated:
    """The gradient entry by all floating-point inputs and all constants that have a name in the file, but for some."""
    module = read_onnx(path)
    function = module.entries["main"]
    inputs = zip(module.input_names["main"], function.args, strict=True)
    wrt = [name for name, value in inputs if function.types[value].dtype.is_float]
    used = {str(n.attributes["digest"]) for n in graph_nodes(function) if n.op == "constant"}
    for digest, name in module.constant_names.items():
        array = module.constants[digest]
        if digest in used and name and name not in without and array.size > 1 and dtype_of(array.dtype).is_float:
            wrt.append(name)
    both = with_grad(module, "main", wrt)
    only = replace(
        both,
        entries={"main": both.entries[GRADIENT]},
        input_names={"main": both.input_names[GRADIENT]},
        output_names={"main": both.output_names[GRADIENT]},
        states={},
        derivatives=frozenset({"main"}),
    )
    return Differentiated(only, tuple(wrt))


def build(subject: Differentiated, source: Path, out: Path, *, verify: bool) -> float:
    """Write the bundle; gives the largest error of its proof, 0 without one."""
    target, precision, backend = load_target("native"), load_precision("fp32"), LlvmBackend()
    module = run_passes(subject.module)
    lowered = lower_module(module, machine_of(target))
    cache = default_cache(os.environ)
    built = backend.build(lowered.variant, options_of(target, backend.tools()), Work(1, cache.directory))
    parts = Parts(
        module=module,
        lowered=lowered,
        code=built.code,
        symbols=dict(built.symbols),
        target=target,
        precision=precision,
        producer=Tool("benchmarks.gradients", __version__),
        tools=tuple(Tool(name, number) for name, number in backend.tools()),
        sources={"model": Digest.of(source.read_bytes())},
        levels=("graph", "schedule", "tile"),
    )
    variant = make_variant(parts)
    error = 0.0
    if verify:
        judged = Subject(subject.module, module, lowered, dict(built.symbols), variant, precision)
        proof = verify_variant(judged, expected_answers(subject.module, None), 1)
        error = max(proof.max_error, proof.max_group_error)
    out.unlink(missing_ok=True)
    write_bundle(out, [variant])
    return error
