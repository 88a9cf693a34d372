"""What a model holds, what of it cannot be built, and what a build of it would cost: all at once, nothing compiled.

Takes: a model, sizes for its dims, a target.
Gives: `Diagnosis`: every gap with the node's name and the nearest rewrite, operators, dims, sizes, the estimated share
of time of each operator.
Invariant: every number is counted from the model or estimated by a stated formula; nothing is measured.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bundle_format.errors import TesseraError
from tessera_build.config import load_target
from tessera_build.driver.draws import draw_warnings
from tessera_build.driver.footprint import Footprint, footprint, footprint_warnings
from tessera_build.driver.machine import machine_of
from tessera_build.driver.source import Model, source_of
from tessera_build.frontends.onnx import Surveyed, survey_onnx
from tessera_build.ir.core.dims import DimRequest, evaluate, symbols_of
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import GRAPH_PASSES
from tessera_build.ir.graph.sweep import drop_dead
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.estimate import Cost, launch_cost
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.budget import assumed_sizes
from tessera_build.verify.inputs import Sizes, choose_sizes


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that a build would refuse. `code` as in docs/exit-codes.md; `broken`: the model's fault, not ours."""

    node: str
    code: str
    message: str
    found: str | None
    rewrite: str | None
    broken: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counted at `sizes` on one core of `target`: weights and workspace in bytes, operations, and where cycles go.

    `costs` are the launches' sums by operator, dearest first; `share` of a cost is its part of all cycles. `largest` is
    what a call takes at the largest sizes of the dims, where these have bounds.
    """

    target: str
    sizes: Sizes
    weight_bytes: int
    arena_bytes: int
    operations: float
    traffic_bytes: int
    costs: tuple[Cost, ...]
    launches: int
    largest: Footprint | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What there is to know of a model before it is built."""

    model: str
    opsets: Mapping[str, int]
    operators: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dims: Mapping[str, str]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    gaps: tuple[Gap, ...]
    estimate: Estimate | None
    seconds: float

    @property
    def builds(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.gaps


def diagnose(model: Model, *, target: str = "native", dims: Mapping[str, DimRequest] | None = None) -> Diagnosis:
    """Look at the whole model; raises only where there is no model to look at, or no such target or dim."""
    start = time.perf_counter()
    load_target(target)
    source = source_of(model)
    source.for_onnxruntime()  # a model in the language has no gaps to survey: `tessera shapes` names the first line
    name = source.name
    found = survey_onnx(model, dims=dims)  # type: ignore[arg-type]
    module = found.imported.module
    gaps = [_gap(problem) for problem in found.problems]
    estimate: Estimate | None = None
    try:
        estimate = _estimate(module, target, dims or {})
    except TesseraError as error:
        if not gaps:
            gaps.append(_gap(error))
    return Diagnosis(
        model=name,
        opsets=dict(sorted(found.opsets.items())),
        operators=_operators(found),
        inputs=_signature(module, found, inputs=True),
        outputs=_signature(module, found, inputs=False),
        dims=_dims(module, found),
        assumptions=tuple(f"{left} {relation} {right}: {text}" for left, relation, right, text in module.guards),
        warnings=(*draw_warnings(module), *footprint_warnings(estimate.largest if estimate else None)),
        gaps=tuple(gaps),
        estimate=estimate,
        seconds=time.perf_counter() - start,
    )


_BROKEN_MODEL: Final = 3  # the exit code of a ModelError


def _gap(error: TesseraError) -> Gap:
    broken = error.exit_code == _BROKEN_MODEL
    return Gap(str(error.where or ""), error.code, error.message, error.found, error.hint, broken)


def _operators(found: Surveyed) -> Mapping[str, int]:
    """Uses of every operator that matters, most used first."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node, _ in found.nodes)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _signature(module: Module, found: Surveyed, *, inputs: bool) -> tuple[str, ...]:
    """Names and types; stand-ins for what cannot be built are not the model's inputs."""
    (function,) = module.entries.values()
    (names,) = (module.input_names if inputs else module.output_names).values()
    values = function.args if inputs else function.results
    made = {output for node, _ in found.nodes for output in node.output}
    pairs = [(n, v) for n, v in zip(names, values, strict=True) if not (inputs and n in made)]
    return tuple(f"{name}: {function.types[value]}" for name, value in pairs)


def _dims(module: Module, found: Surveyed) -> Mapping[str, str]:
    """The dims of the model's own inputs; what stands in for gaps has dims that nobody asks for."""
    (function,) = module.entries.values()
    (names,) = module.input_names.values()
    made = {output for node, _ in found.nodes for output in node.output}
    own = [function.types[v] for name, v in zip(names, function.args, strict=True) if name not in made]
    used = {name for type_ in own for extent in type_.shape for name in symbols_of(extent)}
    return {name: _range_text(limits) for name, limits in sorted(module.dims.items()) if name in used}


def _range_text(limits: tuple[int | None, int | None]) -> str:
    low, high = limits
    return f"{0 if low is None else low} to {'any size' if high is None else high}"


def _estimate(module: Module, target: str, dims: Mapping[str, DimRequest]) -> Estimate | None:
    """Lower the module as a build would, and count; None where no sizes fit its dims."""
    config = load_target(target)
    machine = machine_of(config)
    sizes = _sizes(module, dims)
    if sizes is None:
        return None
    module = drop_dead(module)
    for step in GRAPH_PASSES:
        module = step.run(module)
    lowered = lower_module(module, machine)
    known = {**sizes, **assumed_sizes(module, sizes)}
    costs = [launch_cost(record, known, machine) for records in lowered.launches for record in records]
    return Estimate(
        target=config.name,
        sizes=sizes,
        weight_bytes=sum(weight.array.nbytes for weight in lowered.weights),
        arena_bytes=_arena(lowered, sizes),
        operations=sum(cost.operations for cost in costs),
        traffic_bytes=sum(cost.bytes for cost in costs),
        costs=_by_operator(costs),
        launches=len(costs),
        largest=footprint(module, lowered),
    )


def _arena(lowered: LoweredVariant, sizes: Sizes) -> int:
    return max((evaluate(entry.arena_bytes, sizes) for entry in lowered.variant.entries), default=0)


def _sizes(module: Module, dims: Mapping[str, DimRequest]) -> Sizes | None:
    """The smallest sizes that a proof would use; a dim that was bounded has its upper bound."""
    found = choose_sizes(module)
    upper = {name: limits[1] for name, limits in dims.items() if isinstance(limits, tuple) and limits[1] is not None}
    return None if not found else {name: upper.get(name, size) for name, size in found[0].items()}


def _by_operator(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """Launches of one name together, dearest first."""
    sums: dict[str, Cost] = {}
    for cost in costs:
        known = sums.get(cost.name, replace(cost, operations=0.0, bytes=0, cycles=0.0))
        sums[cost.name] = replace(
            known,
            operations=known.operations + cost.operations,
            bytes=known.bytes + cost.bytes,
            cycles=known.cycles + cost.cycles,
        )
    return tuple(sorted(sums.values(), key=lambda cost: (-cost.cycles, cost.name)))
