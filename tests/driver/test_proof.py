"""A proof can fail: lowerings broken on purpose, bundles whose code lies, and the parts that judge."""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tessera_build
from bundle_format import Digest, media
from bundle_format.reader import open_bundle
from bundle_format.writer import Attachment, Layer, Variant, write_bundle
from tessera_build.config import ConfigError, load_precision
from tessera_build.driver.opened import proofs_of
from tessera_build.driver.verify_bundle import verify_bundle
from tessera_build.frontends.onnx import read_onnx
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.types import F32, tensor
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.passes.pipeline import run_passes
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.schedule.nodes import Compute
from tessera_build.ir.target.host import Launch
from tessera_build.lower.graph_to_schedule import definitions
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.audit import Checks
from tessera_build.lower.program.kernels import Chooser
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.lower.program.shared import Progress
from tessera_build.lower.schedule_to_tile.layouts import Packing
from tessera_build.space.strassen import HALVES, LEAST_ROWS
from tessera_build.verify.compare import error_of, limit_of
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import choose_sizes, make_inputs
from tessera_build.verify.isolate import CrashError, Mark, in_child
from tessera_build.verify.onnx_reference import OnnxReference
from tessera_build.verify.proof import OutputProof, parse_proof, proof_bytes
from tests.driver.models import digits, embedding, mlp
from tests.driver.test_build import future_target

Row = Callable[[GraphNode, definitions.Context], tuple[Compute, ...]]


def break_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every maximum over windows become a minimum."""
    sound: Row = definitions._TABLE["reduce_window"]

    def broken(node: GraphNode, context: definitions.Context) -> tuple[Compute, ...]:
        return tuple(replace(d, combine="min") if d.combine == "max" else d for d in sound(node, context))

    monkeypatch.setitem(definitions._TABLE, "reduce_window", broken)


def break_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packed weights come out one element further."""
    sound = Packing.apply
    monkeypatch.setattr(Packing, "apply", lambda self, array: np.roll(sound(self, array), 1))


@pytest.mark.numerics
@pytest.mark.parametrize(("breakage", "node"), [(break_pooling, "pool2"), (break_packing, "norm1")])
def test_build_when_a_lowering_is_broken_then_fails_and_names_the_operator(
    tmp_path: Path,
    kernel_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    breakage: Callable[[pytest.MonkeyPatch], None],
    node: str,
) -> None:
    breakage(monkeypatch)
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(digits(), ["x86-64-v3"], tmp_path / "d.tessera", cache=kernel_cache)
    assert (caught.value.code, caught.value.exit_code) == ("OPERATOR_WRONG", 5)
    assert caught.value.where == node
    assert list(tmp_path.iterdir()) == []


@pytest.mark.numerics
def test_build_when_the_code_writes_anywhere_then_survives_and_names_the_operator(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wild(
        module: Module, machine: CpuMachine, checks: Checks, progress: Progress | None, choose: Chooser
    ) -> LoweredVariant:
        lowered = lower_module(module, machine, checks, progress, choose)
        (entry,) = lowered.variant.entries
        nodes = tuple(astray(n) if isinstance(n, Launch) and n.node == second else n for n in entry.nodes)
        variant = replace(lowered.variant, entries=(replace(entry, nodes=nodes),))
        return replace(lowered, variant=variant)

    def astray(launch: Launch) -> Launch:
        return replace(launch, buffers=tuple(replace(buffer, offset=1 << 45) for buffer in launch.buffers))

    second = lower_module(run_passes(read_onnx(mlp())), CpuMachine("any", 8, 16, True)).nodes.index("second")
    monkeypatch.setattr("tessera_build.driver.build.lower_module", wild)
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert (caught.value.code, caught.value.where, caught.value.found) == ("CODE_CRASHED", "second", "signal SIGSEGV")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.numerics
def test_build_when_a_lowering_is_broken_for_a_foreign_machine_then_the_tile_sample_finds_it(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = future_target(tmp_path)
    break_pooling(monkeypatch)
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(digits(), [target], tmp_path / "d.tessera", cache=kernel_cache)
    assert caught.value.where in {"pool2", "pool3"}
    assert not (tmp_path / "d.tessera").exists()


@pytest.mark.numerics
def test_build_when_a_pass_is_broken_then_fails_and_names_the_output(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(module: Module) -> Module:
        constants = {
            digest: np.multiply(array.astype(np.float32), np.float32(1.01))
            for digest, array in module.constants.items()
        }
        return replace(module, constants=constants)

    class Scale:
        def run(self, module: Module) -> Module:
            return scaled(module)

    monkeypatch.setattr("tessera_build.driver.build.GRAPH_PASSES", (Scale(),))
    with pytest.raises(VerificationError) as caught:
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert (caught.value.code, caught.value.where) == ("OUTPUT_WRONG", "y")


@pytest.mark.numerics
def test_verify_when_bundle_is_sound_then_replays_and_compares(mlp_bundle: Path, tmp_path: Path) -> None:
    model = tmp_path / "mlp.onnx"
    model.write_bytes(mlp().SerializeToString(deterministic=True))
    assert {check.method for check in verify_bundle(mlp_bundle).variants} == {"replayed"}
    compared = verify_bundle(mlp_bundle, model)
    assert [(check.method, check.cases) for check in compared.variants] == [("compared", 2)] * 2
    assert all(0 < (check.max_error or 0) <= 1e-4 for check in compared.variants)


@pytest.mark.errors
def test_verify_when_the_model_is_another_then_refuses(mlp_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="MODEL_MISMATCH"):
        verify_bundle(mlp_bundle, digits())


@pytest.mark.errors
def test_verify_when_the_recorded_answer_differs_then_fails(mlp_bundle: Path, tmp_path: Path) -> None:
    with open_bundle(mlp_bundle) as bundle:
        variant = next(v for v in bundle.variants if v.config.target.name == "x86-64-v2")
        layers = [Layer(layer.media_type, bundle.read(layer)) for layer in variant.manifest.layers]
        proof = proofs_of(bundle)["x86-64-v2"]
        forged = OutputProof("y", str(Digest.of(b"")), {"graph": 0.0})
        cases = tuple(replace(case, outputs=(forged,)) for case in proof.cases)
        attachment = Attachment(media.PROOF, proof_bytes(replace(proof, cases=cases)), "x86-64-v2")
        write_bundle(tmp_path / "forged", [Variant(variant.config, layers)], [attachment])
    with pytest.raises(VerificationError, match="OUTPUT_WRONG"):
        verify_bundle(tmp_path / "forged")


@pytest.mark.unit
def test_proof_when_written_and_read_then_is_the_same(mlp_bundle: Path) -> None:
    with open_bundle(mlp_bundle) as bundle:
        proof = proofs_of(bundle)["x86-64-v3"]
    assert parse_proof(proof_bytes(proof)) == proof


@pytest.mark.unit
def test_error_of_when_arrays_differ_then_is_a_share_of_the_largest() -> None:
    reference = np.array([1.0, -4.0], np.float32)
    assert error_of(np.array([1.5, -4.0], np.float32), reference) == 0.125
    assert error_of(reference, reference) == 0
    assert error_of(reference.astype(np.float64), reference) == math.inf
    assert error_of(np.array([np.nan, -4.0], np.float32), reference) == math.inf
    assert error_of(np.array([np.inf], np.float32), np.array([-np.inf], np.float32)) == math.inf
    assert error_of(np.array([np.inf, np.nan], np.float32), np.array([np.inf, np.nan], np.float32)) == 0
    assert error_of(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25
    least = np.array([1.4e-45, 2.8e-45], np.float32)  # a step and two of those between zero and 2 ** -126
    assert error_of(least, least[::-1]) == 2.0**-23


@pytest.mark.unit
def test_limit_of_when_answers_are_choices_then_is_their_agreement() -> None:
    policy = load_precision("fp32").tolerance
    assert limit_of(np.zeros(1, np.float32), policy.group, policy) == policy.group
    assert limit_of(np.zeros(1, np.int64), policy.group, policy) == pytest.approx(1 - policy.agreement)


@pytest.mark.unit
def test_make_inputs_when_integers_select_then_stay_below_the_extent() -> None:
    module = read_onnx(embedding())
    inputs = make_inputs(module, "main", {"n": 5000}, 1)["x"]
    assert (inputs.min(), inputs.max()) == (0, 10)
    assert np.array_equal(inputs, make_inputs(module, "main", {"n": 5000}, 1)["x"])


def guarded(extent: int, low: int, high: int | None) -> Module:
    """A module over one dim that must be `extent` or more."""
    builder = GraphBuilder(dims={"n": (low, high)})
    builder.output("y", builder.op("neg", builder.input("x", tensor(F32, symbol("n")))))
    return replace(builder.finish(), guards=((symbol("n"), ">=", extent, "large enough"),))


@pytest.mark.unit
def test_choose_sizes_when_guards_and_ranges_bind_then_keeps_to_them() -> None:
    assert [sizes["n"] for sizes in choose_sizes(guarded(1, 1, None))] == [3, 33]
    assert [sizes["n"] for sizes in choose_sizes(guarded(40, 1, None))] == [48, 49]
    assert [sizes["n"] for sizes in choose_sizes(guarded(1, 6, 6))] == [6]
    assert choose_sizes(guarded(9, 1, 8)) == ()


@pytest.mark.unit
@pytest.mark.parametrize(("combined", "most", "found"), [(1, None, 53), (2, None, 33), (1, 40, 40)])
def test_choose_sizes_when_a_dim_counts_tokens_then_products_in_halves_run(
    combined: int, most: int | None, found: int
) -> None:
    b = GraphBuilder()
    x = b.input("x", tensor(F32, symbol("N"), symbol("S"), 8))
    y = b.op("matmul", x, b.constant(np.ones((8, 8), np.float32)))
    b.output("y", b.op("reduce", y, kind="max", axes=(combined,), keepdims=False))
    small, large = choose_sizes(replace(b.finish(), dims={"S": (1, most)}))
    assert (small, large) == ({"N": 3, "S": 3}, {"N": 33, "S": found})
    assert most or combined > 1 or large["S"] >= HALVES * LEAST_ROWS


@pytest.mark.unit
def test_choose_sizes_when_all_are_dear_then_takes_the_cheapest() -> None:
    builder = GraphBuilder(dims={"n": (1, None)})
    builder.output("y", builder.op("neg", builder.input("x", tensor(F32, symbol("n"), 1 << 26))))
    assert choose_sizes(builder.finish()) == ({"n": 1},)


@pytest.mark.unit
def test_in_child_when_work_ends_then_gives_its_result_error_or_last_mark() -> None:
    def fails(_mark: Mark) -> None:
        raise ConfigError("ODD", "told so", where="here")

    def dies(mark: Mark) -> None:
        mark.set(7)
        os.kill(os.getpid(), signal.SIGSEGV)

    assert in_child(lambda _: {"a": (1, 2)}) == {"a": (1, 2)}
    with pytest.raises(ConfigError, match="told so") as told:
        in_child(fails)
    assert told.value.where == "here"
    with pytest.raises(CrashError) as crash:
        in_child(dies)
    assert (crash.value.reason, crash.value.mark) == ("signal SIGSEGV", 7)


@pytest.mark.numerics
def test_build_when_the_references_disagree_then_blames_no_code(
    tmp_path: Path, kernel_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = OnnxReference.run
    monkeypatch.setattr(
        OnnxReference,
        "run",
        lambda self, inputs: {
            name: np.negative(array.astype(np.float32)) for name, array in sound(self, inputs).items()
        },
    )
    with pytest.raises(VerificationError, match="REFERENCES_DISAGREE") as caught:
        tessera_build.build(mlp(), ["x86-64-v3"], tmp_path / "m", cache=kernel_cache)
    assert caught.value.where == "y"
