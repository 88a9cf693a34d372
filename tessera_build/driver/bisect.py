"""Find the first group of operators that answers wrongly on a user's own input, and cut it out.

Takes: a bundle, the model that it was built from, inputs.
Gives: `Bisection`: every group's error, the first one beyond the tolerance, and a folder that shows it.
Invariant: the code that is judged is the bundle's own; the model is lowered again only to know which launch computes
what, and a lowering that is not the bundle's is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bundle_format.errors import TesseraError
from bundle_format.reader import Bundle, VariantRecord, open_bundle
from tessera_build.config import ConfigError, load_precision, load_target
from tessera_build.driver.machine import bounds_of, machine_of
from tessera_build.driver.opened import level_text, variant_named
from tessera_build.driver.reproducer import Reproducer, write_reproducer
from tessera_build.driver.source import Model, source_of
from tessera_build.driver.verify_bundle import program_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.dims import DimRequest
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.draws import drawn_outputs
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.graph.text import print_module
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.kernels import derived_within
from tessera_build.verify.compare import error_of
from tessera_build.verify.groups import Case, GroupResult, Groups, compare_groups
from tessera_build.verify.onnx_reference import OnnxReference
from tessera_runtime import RunError

_USER_SEED: Final = -1


@dataclass(frozen=True, slots=True)
class BisectRequest:
    """What to look at; `out` is where a reproducer goes when a group is wrong."""

    bundle: Path
    model: Model
    inputs: Mapping[str, Array]
    out: Path
    dims: Mapping[str, DimRequest]
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Bisection:
    """`outputs`: each output's error against onnxruntime; `groups`: every launch; `first`: the first wrong one."""

    target: str
    outputs: Mapping[str, float]
    groups: tuple[GroupResult, ...]
    first: GroupResult | None
    written: tuple[Path, ...]
    note: str


def bisect(request: BisectRequest) -> Bisection:
    """Compare every group of the bundle with the reference on the given inputs."""
    with open_bundle(request.bundle) as bundle:
        bundle.verify_full()
        variant = variant_named(bundle, request.target)
        groups, case = _prepared(bundle, variant, request)
        program = program_of(bundle, variant)
        expected = OnnxReference(source_of(request.model).for_onnxruntime()).run(request.inputs)
        found = program.run(case.entry, case.inputs, case.sizes)
        drawn = drawn_outputs(groups.module, case.entry)  # by other numbers than onnxruntime's
        judged = expected.keys() - drawn
        errors = {name: error_of(array, expected[name]) for name, array in found.items() if name in judged}
        policy = load_precision(str(variant.config.numerics["policy"])).tolerance
        results = tuple(sorted(compare_groups(program, groups, case, policy), key=lambda r: r.launch))
        first = next((result for result in results if not result.accepted), None)
        written: tuple[Path, ...] = ()
        if first is not None:
            written = write_reproducer(Reproducer(groups, case, first.launch, program, request.model), request.out)
        note = _note(first, max(errors.values(), default=0.0), policy.end_to_end)
        return Bisection(variant.config.target.name, errors, results, first, written, note)


def _prepared(bundle: Bundle, variant: VariantRecord, request: BisectRequest) -> tuple[Groups, Case]:
    """The bundle's launches beside the graph, and the user's inputs as a case."""
    source = source_of(request.model)
    if variant.config.sources.get("model") != source.digest:
        raise ConfigError(
            "MODEL_MISMATCH",
            "the bundle was built from another model",
            where=source.name,
            expected=str(variant.config.sources.get("model")),
            found=str(source.digest),
        )
    if "schedules" in variant.config.sources:
        raise ConfigError(
            "SCHEDULES_GIVEN",
            "the bundle was built with a file of schedules, which may launch otherwise than the model alone says",
            hint="build it without --schedule; where that is right, the schedules are what to look at",
        )
    module = run_passes(read_onnx(request.model, dims=request.dims))  # type: ignore[arg-type]
    if print_module(module, locations=True) != level_text(bundle, variant, "graph"):
        raise ConfigError(
            "BUNDLE_MISMATCH",
            "this version of Tessera, or other options, made the bundle: its graph is not what the model gives here",
            hint="build the bundle again with this version, and give --dims as they were given to the build",
        )
    policy = load_precision(str(variant.config.numerics["policy"]))
    choose = derived_within(bounds_of(policy))
    lowered = lower_module(module, machine_of(load_target(variant.config.target.name)), choose=choose)
    symbols = {kernel.name: kernel.name for kernel in lowered.variant.kernels}
    (entry,) = module.entries
    sizes = _sizes(module, entry, request.inputs)
    return Groups.of(module, lowered, symbols, entry), Case(entry, sizes, _USER_SEED, request.inputs)


def _sizes(module: Module, entry: str, inputs: Mapping[str, Array]) -> Mapping[str, int]:
    """The dims of the user's inputs, which the reference takes: else they are refused as a run refuses them."""
    try:
        return reference.run_with_sizes(module, entry, inputs, module.entries[entry].results)[1]
    except TesseraError as error:
        raise RunError(
            error.code, error.message, where=error.where, expected=error.expected, found=error.found, hint=error.hint
        ) from error


def _note(first: GroupResult | None, worst: float, limit: float) -> str:
    if first is not None:
        return f"{first.node} is the first group whose answer is wrong by itself"
    if worst > limit:
        return (
            "every group is right by itself, but their errors add up beyond the tolerance: the model magnifies "
            "rounding on this input, or a loop or choice, which is compared as a whole only, is wrong"
        )
    return "every group and every output is within its tolerance on this input"
