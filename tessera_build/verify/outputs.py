"""Outputs of whole runs against the references' answers.

Takes a case with its answers and what a run gave; gives the first output that is wrong, as an error. Invariant: a limit
is the policy's, and wider only by what its floats make of the model where nothing is built wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping

from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.compare import apart, error_of, is_float, limit_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import LARGEST, noise_of, widened_limit
from tessera_build.verify.sigmoids import ERROR, sigmoid_outputs
from tessera_build.verify.steps import LARGEST as LARGEST_STEPS
from tessera_build.verify.steps import distance, quantises
from tessera_build.verify.subject import GRAPH, Expected, Subject


def output_failure(
    item: Expected, found: Mapping[str, Array], subject: Subject, least: Mapping[str, float] | None = None
) -> VerificationError | None:
    """The first output that differs from a reference, as an error that no group explains yet.

    Where its own floats take the model far from the exact answer, that is the measure. A float may always be off by
    the `least` of its output.
    """
    policy = subject.precision.tolerance
    noise: dict[str, float] | None = None
    steps, absolute = quantises(subject.source), sigmoid_outputs(subject.source, item.case.entry)
    for name, array in found.items():
        limit = limit_of(array, policy.end_to_end, policy)
        for who, answers in item.answers.items():
            if name not in answers:  # it depends on draws, which are not onnxruntime's
                continue
            error = error_of(array, answers[name])
            if error > limit and steps and distance(array, answers[name]) <= LARGEST_STEPS:
                continue
            if error > limit and name in absolute and apart(array, answers[name]) <= ERROR:
                continue
            if error > limit and least is not None and apart(array, answers[name]) <= least.get(name, 0.0):
                continue
            if error > limit and noise is None and is_float(array):
                noise = noise_of(subject.source, item.case.entry, item.case.inputs, item.answers[GRAPH])
            if noise is not None and is_float(array):
                limit = widened_limit(limit, noise.get(name, 0.0))
            if error <= limit:
                continue
            between = max(error_of(other[name], answers[name]) for other in item.answers.values() if name in other)
            turned = min(between, item.apart.get(name, 0.0)) > limit
            if not turned and noise is not None and noise.get(name, 0.0) > LARGEST:
                return undetermined(name, f"output {name!r}", noise[name])
            errors = error, between, limit
            return _wrong_output(name, f"an error of at most {limit:g} against {who}", errors, item)
    return None


def undetermined(where: str, what: str, noise: float) -> VerificationError:
    """The error of what cannot be proved, right or wrong: roundings leave nothing of the answer."""
    return VerificationError(
        "ILL_CONDITIONED",
        f"the model's floats do not determine {what} on the inputs of the proof",
        where=where,
        expected=f"answers that roundings move by at most {LARGEST:g} of the largest",
        found=f"{noise:g}",
        hint="numbers in the model may be too large, or cancel, or roundings turn what it chooses, as arg-max of half "
        "floats: keep that part of the model in f32, or build with --no-verify to get a bundle without a proof",
    )


def _wrong_output(name: str, expected: str, errors: tuple[float, float, float], item: Expected) -> VerificationError:
    """`errors`: of the output, between the references, and the limit."""
    error, between, limit = errors
    found = f"{error:g} with dims {dict(item.case.sizes)}, seed {item.case.seed}"
    own = item.apart.get(name, 0.0)
    if between > limit and own > limit:
        return VerificationError(
            "REFERENCES_DISAGREE",
            f"roundings decide output {name!r}: onnxruntime differs from itself, with and without its optimiser",
            where=name,
            expected=expected,
            found=f"{own:g} between its own two runs; {between:g} to the Graph reference; {found}",
            hint="the model turns roundings into steps or choices, as quantisation, top-k and arg-max do: judge the "
            "build by your own data and measure, with --no-verify; or leave the layer that chooses unquantised",
        )
    if between > limit:
        return VerificationError(
            "REFERENCES_DISAGREE",
            f"onnxruntime and the Graph reference themselves differ on output {name!r}",
            where=name,
            expected=expected,
            found=f"{between:g} between the two; {found}",
            hint="if random inputs make the model ill-conditioned, name a precision file with a wider tolerance "
            "under `precision` in --config, or build with --no-verify; else report it as a bug of Tessera",
        )
    return VerificationError(
        "OUTPUT_WRONG",
        f"the build gives a wrong output {name!r}",
        where=name,
        expected=expected,
        found=found,
        hint="each operator by itself is right, so report this as a bug of Tessera",
    )
