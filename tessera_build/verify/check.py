"""The proof of one variant: whole runs against two references, then every fusion group by itself.

Takes: a `Subject` (the modules, the lowered variant and its bundle form) and the model as the user gave it.
Gives: a `Proof`; raises `VerificationError` that names the operator, or the output where no single operator is wrong.
Invariant: seeds, sizes and inputs are a function of the model, so anyone can repeat a proof from its record.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.draws import drawn_outputs
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.verify.budget import MOST_STEPS
from tessera_build.verify.compare import error_of, is_float
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.exact import LARGEST, limits_of_moves, noise_of
from tessera_build.verify.execute import CompiledProgram, can_run
from tessera_build.verify.groups import Case, GroupResult, Groups, compare_groups
from tessera_build.verify.in_place import compare_in_place
from tessera_build.verify.inputs import (
    FLAGGED_ATTEMPTS,
    SEED_STEP,
    Sizes,
    attempts_for,
    choose_sizes,
    has_flags,
    make_inputs,
    why_none,
)
from tessera_build.verify.isolate import CrashError, Mark, in_child
from tessera_build.verify.onnx_reference import OnnxReference
from tessera_build.verify.outputs import output_failure, undetermined
from tessera_build.verify.proof import CaseProof, GroupProof, OutputProof, Proof
from tessera_build.verify.subject import GRAPH, ONNXRUNTIME, Expected, Subject
from tessera_build.verify.tile_samples import sample_tiles
from tessera_runtime.cpu.machine import this_machine

FIRST_SEED: Final = 20260101
_CPUINFO: Final = Path("/proc/cpuinfo")

Found = tuple[list[CaseProof], list[GroupResult]]


def expected_answers(source: Module, model: Path | bytes | None) -> tuple[Expected, ...]:
    """Cases for every entry of the model, with the references' answers; the same for all targets of a build.

    In a child: a model that breaks ONNX's rules may take onnxruntime's process with it.
    """
    try:
        return in_child(lambda _: _answers(source, model))
    except CrashError as crash:
        raise VerificationError(
            "REFERENCE_FAILED",
            "onnxruntime, or the Graph reference, ended its process",
            expected="answers to compare with",
            found=crash.reason,
            hint="build with --no-verify to get a bundle without this proof",
        ) from crash


def _answers(source: Module, model: Path | bytes | None) -> tuple[Expected, ...]:
    sizes = choose_sizes(source)
    if not sizes:
        why = why_none(source)
        raise VerificationError(
            "SIZES_NOT_FOUND",
            "no sizes of the model's dynamic dims were found that satisfy all that the model asks of them",
            expected=why.asked or None,
            found=why.ranges or None,
            hint=why.hint,
        )
    drawn = {entry: drawn_outputs(source, entry) for entry in source.entries}
    judged = any(set(source.output_names[entry]) - drawn[entry] for entry in source.entries)
    session = None if model is None or not judged else OnnxReference(model)
    found: list[Expected] = []
    patience = reference.Patience(MOST_STEPS)
    refusals: dict[str, VerificationError] = {}
    for index, chosen in enumerate(sizes):
        for entry in source.entries:
            try:
                found.append(_determined_case(source, entry, chosen, (FIRST_SEED + index, patience), session))
            except VerificationError as error:
                if attempts_for(source.entries[entry]) == 1:
                    raise
                refusals[entry] = error  # one set of sizes is enough
    for item in found:
        refusals.pop(item.case.entry, None)
    for refusal in refusals.values():
        raise refusal
    return tuple(found)


def _determined_case(
    source: Module, entry: str, sizes: Sizes, start: tuple[int, reference.Patience], session: OnnxReference | None
) -> Expected:
    """A case whose answers the model's floats determine; the first one where none of those that are tried is.

    Masks make the difference: of a row that is masked everywhere, half floats leave nothing.
    """
    first = _first_case(source, entry, sizes, start, session)
    function = source.entries[entry]
    if session is None or attempts_for(function) > 1 or not has_flags(function) or _is_determined(source, first):
        return first
    others = (
        _first_case(source, entry, sizes, (start[0] + SEED_STEP * attempt, start[1]), session)
        for attempt in range(1, FLAGGED_ATTEMPTS)
    )
    return next((other for other in others if _is_determined(source, other)), first)


def _is_determined(source: Module, item: Expected) -> bool:
    """Whether the references agree on all floats, as far as roundings let them."""
    graph, onnx = item.answers[GRAPH], item.answers[ONNXRUNTIME]
    far = [n for n, a in onnx.items() if n in graph and is_float(a) and error_of(a, graph[n]) > LARGEST]
    noise = noise_of(source, item.case.entry, item.case.inputs, graph) if far else {}
    return all(noise.get(name, 0.0) <= LARGEST for name in far)


def _first_case(
    source: Module, entry: str, sizes: Sizes, start: tuple[int, reference.Patience], session: OnnxReference | None
) -> Expected:
    """A case that the model and the references accept; its sizes are those of dims and those read from data.

    Where data make shapes, few inputs fit each other: other seeds are tried. None that fits is a `VerificationError`.
    """
    function = source.entries[entry]
    refusal: TesseraError | None = None
    for attempt in range(attempts_for(function)):
        own = start[0] + SEED_STEP * attempt
        inputs = make_inputs(source, entry, sizes, own)
        try:
            values, found = reference.run_with_sizes(source, entry, inputs, function.results, start[1])
            outputs = {n: values[v] for n, v in zip(source.output_names[entry], function.results, strict=True)}
            answers: dict[str, Mapping[str, Array]] = {GRAPH: outputs}
            versions, apart = {"numpy": np.__version__}, dict[str, float]()
            if session is not None:
                drawn = drawn_outputs(source, entry)
                told, apart = session.near(inputs, {n: a for n, a in outputs.items() if n not in drawn})
                answers[ONNXRUNTIME] = {n: a for n, a in told.items() if n not in drawn}
                versions[ONNXRUNTIME] = session.version
        except TesseraError as error:
            if attempts_for(function) == 1 and error.code != "INDEX_OUT_OF_RANGE":
                raise
            refusal = error
            continue
        return Expected(Case(entry, found, own, inputs), answers, versions, apart)
    raise VerificationError(
        "INPUTS_NOT_FOUND",
        f"no random inputs were found that the model accepts in its entry {entry}",
        where=refusal.where if refusal else None,
        expected=refusal.expected if refusal else None,
        found=refusal.message if refusal else None,
        hint="what is computed decides whether a run ends well; build with --no-verify to get a bundle without a proof",
    )


def verify_variant(subject: Subject, expected: Sequence[Expected], threads: int) -> Proof:
    """Prove one variant: by running it where this machine can, else by its tile programs."""
    if can_run(subject.variant.config, this_machine()):
        return _run_natively(subject, expected, threads)
    return _sample(subject, expected)


def _run_natively(subject: Subject, expected: Sequence[Expected], threads: int) -> Proof:
    """In a child: code that is wrong enough takes its process with it."""
    try:
        found = in_child(lambda mark: _compare_runs(subject, expected, threads, mark))
    except CrashError as crash:
        raise _crashed(subject, crash) from crash
    return _proof(subject, "native", expected, found)


def _compare_runs(subject: Subject, expected: Sequence[Expected], threads: int, mark: Mark) -> Found:
    """Whole runs, then groups; `mark` always holds the launch that runs. A wrong group explains a wrong output."""
    program = CompiledProgram(subject.variant, threads)
    policy, groups = subject.precision.tolerance, list[GroupResult]()
    cases: list[CaseProof] = []
    failures: list[tuple[Expected, Mapping[str, Array], VerificationError]] = []
    for item in expected:
        case = item.case
        offset = _first_launch(subject, case.entry)
        found = program.run(case.entry, case.inputs, case.sizes, lambda launch, _, __, at=offset: mark.set(at + launch))
        cases.append(_case_proof(item, found))
        failure = output_failure(item, found, subject)
        failures += [(item, found, failure)] if failure else []
    for item in expected:
        parts = Groups.of(subject.module, subject.lowered, subject.symbols, item.case.entry)
        groups += compare_groups(program, parts, item.case, policy)
        _raise_group_failure(groups, subject)
    for item, found, failure in failures:
        launches = _right_in_place(program, subject, item, found)
        if launches is None:
            raise failure
        groups += launches
    return cases, groups


def _right_in_place(
    program: CompiledProgram, subject: Subject, item: Expected, found: Mapping[str, Array]
) -> list[GroupResult] | None:
    """The launches of a run that is off, where roundings explain that and each launch is right in place; else None."""
    entry, case = item.case.entry, item.case
    limits = limits_of_moves(subject.source, entry, case.inputs)
    if not limits or output_failure(item, found, subject, limits) is not None:
        return None
    parts = Groups.of(subject.module, subject.lowered, subject.symbols, entry)
    launches = compare_in_place(program, parts, case, subject.precision.tolerance)
    return launches if launches is not None and all(launch.accepted for launch in launches) else None


def _first_launch(subject: Subject, entry: str) -> int:
    """The number of an entry's first launch when the launches of all entries are counted through."""
    names = [known.name for known in subject.lowered.variant.entries]
    return sum(len(records) for records in subject.lowered.launches[: names.index(entry)])


def _crashed(subject: Subject, crash: CrashError) -> VerificationError:
    entries = subject.lowered.variant.entries
    launches = [launch for entry in entries for launch in entry.launches]
    node = subject.lowered.nodes[launches[crash.mark].node] if crash.mark >= 0 else None
    return VerificationError(
        "CODE_CRASHED",
        f"the code made for {subject.variant.config.target.name} ended its process"
        + (f" while it computed operator {node!r}" if node else " before its first operator"),
        where=node,
        expected="a run that ends",
        found=crash.reason,
        hint="report this as a bug of Tessera; no bundle was written",
    )


def _sample(subject: Subject, expected: Sequence[Expected]) -> Proof:
    """Whole runs of the graph after the passes stand in for whole runs of the code."""
    groups: list[GroupResult] = []
    cases: list[CaseProof] = []
    for item in expected:
        found = reference.run(subject.module, item.case.entry, item.case.inputs)
        cases.append(_case_proof(item, found))
        failure = output_failure(item, found, subject)
        if failure is not None:
            raise failure
    for item in _first_of_each_entry(expected):
        parts = Groups.of(subject.module, subject.lowered, subject.symbols, item.case.entry)
        groups += sample_tiles(subject.lowered, parts, item.case, subject.precision.tolerance)
        _raise_group_failure(groups, subject)
    return _proof(subject, "tile", expected, (cases, groups))


def _first_of_each_entry(expected: Sequence[Expected]) -> list[Expected]:
    return list({item.case.entry: item for item in reversed(expected)}.values())[::-1]


def _case_proof(item: Expected, found: Mapping[str, Array]) -> CaseProof:
    outputs = tuple(
        OutputProof(
            name,
            digest_of(array),
            {who: error_of(array, answers[name]) for who, answers in item.answers.items() if name in answers},
        )
        for name, array in found.items()
    )
    inputs = {name: digest_of(array) for name, array in item.case.inputs.items()}
    return CaseProof(item.case.entry, dict(item.case.sizes), item.case.seed, inputs, outputs)


def digest_of(array: Array) -> str:
    """The digest of an array's bytes, row-major."""
    return str(Digest.of(np.ascontiguousarray(array).tobytes()))


def _raise_group_failure(groups: Sequence[GroupResult], subject: Subject) -> None:
    wrong = next((group for group in groups if not group.accepted), None)
    if wrong is not None and wrong.noise > LARGEST:
        raise undetermined(wrong.node, f"what operator {wrong.node!r} gives", wrong.noise)
    if wrong is not None:
        raise VerificationError(
            "OPERATOR_WRONG",
            f"the code made for {subject.variant.config.target.name} computes operator {wrong.node!r} wrongly",
            where=wrong.node,
            expected=f"an error of at most {wrong.limit:g} against the Graph reference",
            found=f"{wrong.error:g} in {wrong.kernel}",
            hint="report this as a bug of Tessera; no bundle was written",
        )


def _proof(
    subject: Subject,
    method: str,
    expected: Sequence[Expected],
    found: Found,
) -> Proof:
    policy, (cases, groups) = subject.precision.tolerance, found
    return Proof(
        target=subject.variant.config.target.name,
        method=method,
        machine=machine_name(),
        references={"tessera graph": "1"} | {name: v for item in expected for name, v in item.references.items()},
        tolerance={
            "group": policy.group,
            "end_to_end": max(policy.end_to_end, _largest_error(subject, cases, floats=True)),
            "agreement": min(policy.agreement, 1.0 - _largest_error(subject, cases, floats=False)),
        },
        cases=tuple(cases),
        groups=tuple(GroupProof(group.node, group.kernel, group.error) for group in groups),
        launches=sum(len(records) for records in subject.lowered.launches),
        in_regions=sum(bool(record.depth) for records in subject.lowered.launches for record in records),
    )


def _largest_error(subject: Subject, cases: Sequence[CaseProof], *, floats: bool) -> float:
    """What was accepted of floats, or of integers: beyond the policy where conditioning or steps ask for it."""
    chosen = {
        (entry, name)
        for entry, function in subject.source.entries.items()
        for name, value in zip(subject.source.output_names[entry], function.results, strict=True)
        if function.types[value].dtype.is_float == floats
    }
    outputs = [output for case in cases for output in case.outputs if (case.entry, output.name) in chosen]
    return max((error for output in outputs for error in output.errors.values()), default=0.0)


def machine_name() -> str:
    """The processor as the kernel names it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.machine())
