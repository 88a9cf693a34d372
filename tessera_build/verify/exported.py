"""The proof of an export: onnxruntime runs the model that was written, and the Graph reference the graph behind it.

Takes: a module with one entry, what onnxruntime loads, a precision policy.
Gives: the largest error of any output; raises a `VerificationError` above the policy's tolerance.
Invariant: the model is judged as onnxruntime reads it from its own file; where float32 itself takes a model far from
the exact answer, that is the measure, as it is for a build.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tessera_build.config import PrecisionConfig
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify.compare import error_of, is_float, limit_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import noise_of, widened_limit
from tessera_build.verify.inputs import Sizes, accepted_inputs, choose_sizes, why_none
from tessera_build.verify.onnx_reference import OnnxReference

FIRST_SEED: Final = 20260101
Plain = Callable[[Array], Array]


def check_exported(module: Module, entry: str, model: Path, plain: Plain, precision: PrecisionConfig) -> float:
    """The largest error over one or two sets of sizes; `plain` turns arrays into those that the model's ports take."""
    session = OnnxReference(model)
    sizes = choose_sizes(module)
    if not sizes:
        why = why_none(module)
        raise VerificationError(
            "SIZES_NOT_FOUND",
            "no sizes of the model's dynamic dims were found to check the export with",
            expected=why.asked or None,
            found=why.ranges or None,
            hint=f"{why.hint}; or leave the check out with --no-verify",
        )
    runs = [_both(module, entry, chosen, session, plain) for chosen in sizes]
    return max(error for run in runs for error in _errors(module, entry, run, precision))


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What was fed to the graph and to the model, and what both gave."""

    inputs: Mapping[str, Array]
    answers: Mapping[str, Array]
    found: Mapping[str, Array]


def _both(module: Module, entry: str, sizes: Sizes, session: OnnxReference, plain: Plain) -> _Run:
    inputs = accepted_inputs(module, entry, sizes, FIRST_SEED, lambda feeds: reference.run(module, entry, feeds))
    answers = reference.run(module, entry, inputs)
    return _Run(inputs, answers, session.run({name: plain(array) for name, array in inputs.items()}))


def _errors(module: Module, entry: str, run: _Run, precision: PrecisionConfig) -> list[float]:
    errors: list[float] = []
    noise: dict[str, float] | None = None
    for name, wanted in run.answers.items():
        error = error_of(run.found[name].astype(wanted.dtype), wanted)
        limit = limit_of(wanted, precision.tolerance.end_to_end, precision.tolerance)
        if error > limit and is_float(wanted):
            noise = noise_of(module, entry, run.inputs, run.answers) if noise is None else noise
            limit = widened_limit(limit, noise.get(name, 0.0))
        if error > limit:
            raise VerificationError(
                "OUTPUT_WRONG",
                f"onnxruntime gives another {name!r} for the exported model",
                where=name,
                expected=f"an error of at most {limit:g} against the Graph reference",
                found=f"{error:g} with seed {FIRST_SEED}",
                hint="report this as a bug of Tessera; --no-verify writes the model without this check",
            )
        errors.append(error)
    return errors
