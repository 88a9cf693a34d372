"""Verify a bundle that exists: every byte, then every answer that this machine can give.

Takes: the path of a bundle and, if at hand, the model that it was built from.
Gives: `BundleCheck`; raises `BundleError` for damage and `VerificationError` for a wrong answer.
Invariant: with the model, answers are compared with onnxruntime; without it, with the digests that the proof recorded,
which holds because a bundle's results are a function of its inputs, bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundle_format.digest import Digest
from bundle_format.reader import Bundle, VariantRecord, open_bundle
from bundle_format.schema import Config
from bundle_format.writer import Layer, Variant
from tessera_build.config import ConfigError, Tolerance, load_precision
from tessera_build.driver.opened import graph_of, proofs_of
from tessera_build.driver.source import Model, source_of
from tessera_build.ir.graph.draws import drawn_outputs
from tessera_build.ir.graph.nodes import Array
from tessera_build.verify.check import FIRST_SEED, digest_of
from tessera_build.verify.compare import error_of, limit_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.execute import CompiledProgram, can_run
from tessera_build.verify.inputs import SEED_STEP, accepted_inputs, choose_sizes, make_inputs
from tessera_build.verify.onnx_reference import OnnxReference
from tessera_build.verify.proof import CaseProof, Proof
from tessera_runtime.cpu.machine import default_threads, this_machine


@dataclass(frozen=True, slots=True)
class VariantCheck:
    """What was checked of one variant: `method` is "compared", "replayed" or "unproved"; `note` says why."""

    target: str
    method: str
    cases: int
    max_error: float | None
    note: str


@dataclass(frozen=True, slots=True)
class BundleCheck:
    """Every blob had its digest, and no variant gave a wrong answer."""

    digest: Digest
    blobs: int
    variants: tuple[VariantCheck, ...]


def verify_bundle(path: str | Path, model: Model | None = None) -> BundleCheck:
    """Check digests and answers of a bundle; see the module."""
    with open_bundle(path) as bundle:
        bundle.verify_full()
        blobs = len({descriptor.digest for descriptor in bundle.reachable()})
        reference = None if model is None else _reference(bundle, model)
        proofs = proofs_of(bundle)
        checks = tuple(
            _check(bundle, variant, reference, proofs.get(variant.config.target.name)) for variant in bundle.variants
        )
        return BundleCheck(bundle.identity, blobs, checks)


def _reference(bundle: Bundle, model: Model) -> OnnxReference:
    """onnxruntime on the model, which must be the one that the bundle was built from."""
    source = source_of(model)
    readable = source.for_onnxruntime()
    built_from = {variant.config.sources.get("model") for variant in bundle.variants}
    if built_from != {source.digest}:
        raise ConfigError(
            "MODEL_MISMATCH",
            "the bundle was built from another model",
            where=source.name,
            expected=", ".join(str(digest) for digest in built_from),
            found=str(source.digest),
        )
    return OnnxReference(readable)


def _check(
    bundle: Bundle, variant: VariantRecord, reference: OnnxReference | None, proof: Proof | None
) -> VariantCheck:
    name = variant.config.target.name
    if not can_run(variant.config, this_machine()):
        return VariantCheck(name, "unproved", 0, None, "this machine cannot run it")
    if reference is not None:
        return _compare(bundle, variant, reference, proof)
    if proof is None or proof.method != "native":
        return VariantCheck(name, "unproved", 0, None, "no recorded answers; give the model to compare with")
    return _replay(bundle, variant, proof)


def program_of(bundle: Bundle, variant: VariantRecord) -> CompiledProgram:
    """A variant of an open bundle, ready to be called; its blobs have been compared with their digests."""
    layers = [Layer(layer.media_type, bundle.read(layer)) for layer in variant.manifest.layers]
    return CompiledProgram(Variant(variant.config, layers), default_threads())


def _tolerance(config: Config, proof: Proof | None) -> Tolerance:
    """What the build was held to, or, where nothing is recorded, what its policy asks for."""
    if proof is not None:
        return Tolerance(**proof.tolerance)
    return load_precision(str(config.numerics["policy"])).tolerance


def _compare(bundle: Bundle, variant: VariantRecord, reference: OnnxReference, proof: Proof | None) -> VariantCheck:
    module, program = graph_of(bundle, variant), program_of(bundle, variant)
    policy = _tolerance(variant.config, proof)
    # The inputs that were proved: of those of other seeds, the model's floats may leave nothing.
    seeds = {(case.entry, case.seed % SEED_STEP): case.seed for case in (() if proof is None else proof.cases)}
    name, worst, cases = variant.config.target.name, 0.0, 0
    drawn = {entry: drawn_outputs(module, entry) for entry in module.entries}  # by other numbers than onnxruntime's
    left_out = ", ".join(output for outputs in drawn.values() for output in sorted(outputs))
    entries = [entry for entry in module.entries if set(module.output_names[entry]) - drawn[entry]]
    if not entries:
        note = "every output depends on random draws; leave the model out to repeat the recorded answers"
        return VariantCheck(name, "unproved", 0, None, note)
    for index, sizes in enumerate(choose_sizes(module)):
        for entry in entries:
            seed = seeds.get((entry, (FIRST_SEED + index) % SEED_STEP), FIRST_SEED + index)
            inputs = accepted_inputs(module, entry, sizes, seed, reference.run)
            found = program.run(entry, inputs, sizes)
            expected, _ = reference.near(inputs, {n: a for n, a in found.items() if n not in drawn[entry]})
            for output, array in found.items():
                if output in drawn[entry]:
                    continue
                error, limit = error_of(array, expected[output]), limit_of(array, policy.end_to_end, policy)
                worst = max(worst, error)
                if error > limit:
                    raise _wrong(variant.config, output, f"an error of at most {limit:g}", f"{error:g}")
            cases += 1
    note = f"onnxruntime {reference.version}" + (f"; {left_out} not compared, being drawn" if left_out else "")
    return VariantCheck(name, "compared", cases, worst, note)


def _replay(bundle: Bundle, variant: VariantRecord, proof: Proof) -> VariantCheck:
    module, program = graph_of(bundle, variant), program_of(bundle, variant)
    for case in proof.cases:
        inputs = make_inputs(module, case.entry, case.sizes, case.seed)
        if {name: digest_of(array) for name, array in inputs.items()} != dict(case.inputs):
            note = "this version of numpy makes other inputs from the recorded seeds; give the model to compare with"
            return VariantCheck(proof.target, "unproved", 0, None, note)
        _compare_digests(variant.config, program.run(case.entry, inputs, case.sizes), case)
    return VariantCheck(proof.target, "replayed", len(proof.cases), proof.max_error, f"proved on {proof.machine}")


def _compare_digests(config: Config, found: Mapping[str, Array], case: CaseProof) -> None:
    recorded = {output.name: output.digest for output in case.outputs}
    for name, array in found.items():
        if recorded.get(name) != digest_of(array):
            raise _wrong(config, name, recorded.get(name, "a recorded digest"), digest_of(array))


def _wrong(config: Config, output: str, expected: str, found: str) -> VerificationError:
    return VerificationError(
        "OUTPUT_WRONG",
        f"the code for {config.target.name} gives a wrong output {output!r} on this machine",
        where=output,
        expected=expected,
        found=found,
        hint="report it with this machine's processor and the bundle's digest",
    )
