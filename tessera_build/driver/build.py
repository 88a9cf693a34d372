"""From a model to a proved bundle: the pipeline, as a flat tuple of stages.

Takes: a model, names of targets, options.
Gives: a bundle on disk and a `BuildResult`; raises a `TesseraError` and leaves nothing behind.
Invariant: the bundle's identity depends on the model, the targets and the options alone: not on workers, cache, paths
or the machine (but for the target `native`, which names it).
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar, cast

from bundle_format import media
from bundle_format.canonical import Json, canonical_bytes
from bundle_format.digest import Digest
from bundle_format.errors import TesseraError
from bundle_format.layout_files import occupation
from bundle_format.schema import Tool
from bundle_format.writer import Attachment, Variant, write_bundle
from tessera_build import __version__
from tessera_build.backends.interface import BuiltVariant, Work
from tessera_build.backends.llvm.cache import default_cache
from tessera_build.backends.llvm.variant import LlvmBackend
from tessera_build.bundler import Parts, make_variant
from tessera_build.config import (
    BuildConfig,
    ConfigError,
    HostError,
    PrecisionConfig,
    TargetConfig,
    load_precision,
    load_target,
)
from tessera_build.driver.draws import draw_warnings
from tessera_build.driver.footprint import footprint, footprint_warnings, workspace
from tessera_build.driver.machine import bounds_of, machine_of, options_of
from tessera_build.driver.nesting import nested_too_deep
from tessera_build.driver.result import BuildResult, Event, KernelCount, Progress, StageTime
from tessera_build.driver.schedules import Given, Overriding, read_schedules
from tessera_build.driver.source import Model, Source, is_python, source_of
from tessera_build.frontends.onnx import read_onnx
from tessera_build.frontends.python import read_python
from tessera_build.ir.core.dims import DimRequest
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.passes.pipeline import GRAPH_PASSES
from tessera_build.ir.schedule.trace import ScheduleRejectedError
from tessera_build.lower.program.assemble import lower_module
from tessera_build.lower.program.audit import NO_CHECKS, Checks, checks_of
from tessera_build.lower.program.kernels import derived_within
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.budget import check_affordable, check_work
from tessera_build.verify.check import expected_answers, verify_variant
from tessera_build.verify.proof import Proof, proof_bytes
from tessera_build.verify.subject import Subject
from tessera_runtime.cpu.machine import default_threads

T = TypeVar("T")
# What the bytes depend on beside Tessera and the back end: operators decompose by onnx, text is packed by zstandard.
_TOOLS: Final = ("onnx", "zstandard")
_UNBOUNDED: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that one build is asked for. `cache` None: kernels are neither looked up nor kept."""

    model: Model
    out: Path
    config: BuildConfig
    dims: Mapping[str, DimRequest]
    verify: bool
    cache: Path | None
    progress: Progress
    proof_bytes: int | None = None
    checks: Checks = NO_CHECKS
    entries: tuple[str, ...] = ()
    proof_operations: float | None = None
    schedules: Path | None = None


@dataclass(slots=True)
class _Target:
    """One target on its way through the pipeline."""

    config: TargetConfig
    lowered: LoweredVariant
    built: BuiltVariant | None = None
    variant: Variant | None = None
    proof: Proof | None = None


@dataclass(slots=True)
class _Draft:
    """What the stages hand on."""

    request: Request
    source: Source
    precision: PrecisionConfig
    configs: tuple[TargetConfig, ...]
    given: Given | None = None
    original: Module | None = None
    module: Module | None = None
    targets: list[_Target] = field(default_factory=list[_Target])
    digest: Digest | None = None

    def report(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Tell whoever watches."""
        self.request.progress(Event(stage, done, total, detail))


def build(  # noqa: PLR0913  the public door: every option is a keyword
    model: Model,
    targets: Sequence[str] | None = None,
    out: str | Path = "model.tessera",
    *,
    config: BuildConfig | None = None,
    dims: Mapping[str, DimRequest] | None = None,
    workers: int | None = None,
    verify: bool = True,
    cache: str | Path | bool | None = True,
    progress: Progress | None = None,
    proof_bytes: int | None = None,
    debug: str = "",
    entries: Sequence[str] = (),
    proof_operations: float | None = None,
    schedules: str | Path | None = None,
) -> BuildResult:
    """Build `model` (a path, of an ONNX file or a model.py, an ONNX protobuf or a module) for `targets` into `out`.

    `dims` fixes (`{"N": 4}`) or bounds (`{"N": (1, 64)}`) dynamic dims, beyond `config.dims`; `workers` are compile
    processes; `cache` is a folder of compiled kernels, True the user's own, False or None none.
    `proof_bytes` is what the values of the model may take together while it is proved; by default 1.5 GiB, or 64 times
    the weights where that is more; `proof_operations` what it may compute, by default 3e11, or 2048 for each byte of
    the weights. `debug` ("nan,inf,bounds" or some of them) makes every node's results be looked at while the bundle
    runs: it is slow, and ends with an error that names the node; it is not proved.
    `entries` names those of a model.py to build; without names, all that it offers. `schedules` is a file that says how
    tasks are computed which it names, in place of what the cost model chooses.
    """
    chosen = config or BuildConfig()
    chosen = replace(chosen, targets=tuple(targets or chosen.targets), threads=workers or chosen.threads)
    bounds: dict[str, DimRequest] = {d.name: (d.minimum, d.maximum or _UNBOUNDED) for d in chosen.dims}
    folder = default_cache(os.environ).directory if cache is True else Path(cache) if cache else None
    request = Request(
        model, Path(out), chosen, bounds | dict(dims or {}), verify, folder, progress or _quiet, proof_bytes
    )
    # On the proof's random inputs a sound model may well give NaN; what a debug build asks is about the user's inputs.
    verify = verify and not debug
    request = replace(request, checks=checks_of(debug), verify=verify, proof_operations=proof_operations)
    by_hand = Path(schedules) if schedules is not None else None
    return run_request(replace(request, entries=tuple(entries), schedules=by_hand))


def run_request(request: Request) -> BuildResult:
    """Run all stages."""
    _check_output(request.out)
    draft = _Draft(
        request,
        source_of(request.model),
        load_precision(request.config.precision),
        _distinct([load_target(name) for name in request.config.targets]),
        read_schedules(request.schedules) if request.schedules is not None else None,
    )
    timings: list[StageTime] = []
    for name, stage in STAGES:
        start = time.perf_counter()
        draft.report(name, 0, 0)
        _run_stage(name, stage, draft)
        timings.append(StageTime(name, time.perf_counter() - start))
    return _result(draft, tuple(timings))


def _run_stage(name: str, stage: Callable[[_Draft], None], draft: _Draft) -> None:
    """Run one stage; what nobody expected becomes a `TesseraError` too, with the exception as its cause."""
    try:
        stage(draft)
    except TesseraError:
        raise
    except MemoryError as error:
        raise HostError(
            "OUT_OF_MEMORY",
            f"the stage {name!r} of the build needs more memory than this machine has",
            where=draft.source.name,
            found=str(error) or None,
            hint="`tessera doctor` shows the sizes; bound dims with --dims, or leave the proof out with --no-verify",
        ) from error
    except RecursionError as error:
        raise nested_too_deep(error, name, draft.source.name) from error
    except Exception as error:
        raise TesseraError(
            "INTERNAL",
            f"the stage {name!r} of the build failed in a way that nobody expected",
            where=draft.source.name,
            found=repr(error),
            hint="this is a bug of Tessera; please report it with the model, if you may, and this text",
        ) from error


def _load(draft: _Draft) -> None:
    model = draft.request.model
    if isinstance(model, Module):
        draft.original = model
        return
    if is_python(model):
        loaded = read_python(str(model), dims=draft.request.dims, entries=draft.request.entries)
        draft.original, draft.source = loaded.module, replace(draft.source, digest=loaded.digest)
        return
    if draft.request.entries:
        raise ConfigError("ENTRY_UNKNOWN", "an ONNX file has one entry", expected="no names of entries")
    draft.original = read_onnx(model, dims=draft.request.dims)  # type: ignore[arg-type]


def _passes(draft: _Draft) -> None:
    module = _present(draft.original)
    for index, step in enumerate(GRAPH_PASSES):
        module = step.run(module)
        draft.report("passes", index + 1, len(GRAPH_PASSES), type(step).__name__)
    draft.module = module


def _lower(draft: _Draft) -> None:
    draft.targets += [_Target(config, _lowered(draft, config)) for config in draft.configs]


def _lowered(draft: _Draft, config: TargetConfig) -> LoweredVariant:
    def progress(done: int, total: int, name: str) -> None:
        draft.report("lower", done, total, f"{config.name}: {name}")

    bounds = bounds_of(draft.precision)
    module, machine, choose = _present(draft.module), machine_of(config), derived_within(bounds)
    if draft.given is None:
        return lower_module(module, machine, draft.request.checks, progress, choose)
    overriding = Overriding(draft.given, bounds, choose)
    try:
        lowered = lower_module(module, machine, draft.request.checks, progress, overriding)
    except ScheduleRejectedError as error:
        raise overriding.rejected(error, config.name) from error
    overriding.check(lowered)
    return lowered


def _compile(draft: _Draft) -> None:
    backend = LlvmBackend()
    for target in draft.targets:

        def progress(done: int, total: int, name: str, of: _Target = target) -> None:
            draft.report("compile", done, total, f"{of.config.name}: {name}")

        work = Work(draft.request.config.threads, draft.request.cache, progress)
        target.built = backend.build(target.lowered.variant, options_of(target.config, backend.tools()), work)


def _assemble(draft: _Draft) -> None:
    for index, target in enumerate(draft.targets):
        target.variant = make_variant(_parts(draft, target))
        draft.report("assemble", index + 1, len(draft.targets), target.config.name)


def _verify(draft: _Draft) -> None:
    if not draft.request.verify:
        return
    original, module = _present(draft.original), _present(draft.module)
    check_affordable(original, draft.request.proof_bytes)
    check_work(original, module, draft.targets[0].lowered, draft.request.proof_operations)
    expected = expected_answers(original, draft.source.reference)
    for index, target in enumerate(draft.targets):
        symbols = dict(_present(target.built).symbols)
        subject = Subject(original, module, target.lowered, symbols, _present(target.variant), draft.precision)
        target.proof = verify_variant(subject, expected, default_threads())
        draft.report("verify", index + 1, len(draft.targets), target.config.name)


def _write(draft: _Draft) -> None:
    variants = [_present(target.variant) for target in draft.targets]
    proofs = [
        Attachment(media.PROOF, proof_bytes(target.proof), target.config.name)
        for target in draft.targets
        if target.proof is not None
    ]
    draft.digest = write_bundle(draft.request.out, variants, proofs)


# The whole build, top to bottom. `verify` stands before `write`: a wrong build never touches the disk.
STAGES: Final[tuple[tuple[str, Callable[[_Draft], None]], ...]] = (
    ("load", _load),
    ("passes", _passes),
    ("lower", _lower),
    ("compile", _compile),
    ("assemble", _assemble),
    ("verify", _verify),
    ("write", _write),
)


def _parts(draft: _Draft, target: _Target) -> Parts:
    built, backend = _present(target.built), LlvmBackend()
    tools = (*backend.tools(), *((name, version(name)) for name in _TOOLS))
    return Parts(
        module=_present(draft.module),
        lowered=target.lowered,
        code=built.code,
        symbols=dict(built.symbols),
        target=target.config,
        precision=draft.precision,
        producer=Tool("tessera-build", __version__),
        tools=tuple(Tool(name, number) for name, number in tools),
        sources={
            "model": draft.source.digest,
            "precision": _record_digest(draft.precision),
            "target": _record_digest(target.config),
        }
        | ({"schedules": draft.given.digest} if draft.given is not None else {}),
        levels=draft.request.config.levels,
        checks=str(draft.request.checks),
        given=frozenset(draft.given.entries) if draft.given is not None else frozenset(),
    )


def _record_digest(record: PrecisionConfig | TargetConfig) -> Digest:
    """The digest of settings by what they say, whatever file they stood in."""
    return Digest.of(canonical_bytes(cast(Json, asdict(record))))


def _check_output(out: Path) -> None:
    """Find out before the work, not after it, that the bundle has no place to go."""
    if not out.absolute().parent.is_dir():
        raise ConfigError(
            "OUTPUT_FOLDER_MISSING",
            "the folder for the bundle does not exist",
            where=str(out),
            expected="a path in a folder that exists",
            hint=f"create it: mkdir -p {out.parent}",
        )
    reason = occupation(out)
    if reason is not None:
        raise ConfigError("TARGET_EXISTS", reason, where=str(out), hint="choose another path")


def _distinct(configs: Sequence[TargetConfig]) -> tuple[TargetConfig, ...]:
    names = [config.name for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError("TARGET_TWICE", f"the target {twice[0]!r} is asked for twice", expected="each target once")
    return tuple(configs)


def _result(draft: _Draft, timings: tuple[StageTime, ...]) -> BuildResult:
    built = [_present(target.built) for target in draft.targets]
    sources = [unit.source for item in built for unit in item.units]
    out = draft.request.out
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    return BuildResult(
        path=out,
        digest=_present(draft.digest),
        targets=tuple(config.name for config in draft.configs),
        verification=tuple(target.proof for target in draft.targets if target.proof is not None),
        warnings=tuple(_warnings(draft)),
        timings=timings,
        kernels=KernelCount(sources.count("compiled"), sources.count("cache"), sources.count("duplicate")),
        bytes=sum(path.stat().st_size for path in files),
        workspaces=tuple(
            workspace(target.config.name, entry.name, entry.arena_bytes, _present(draft.module).dims)
            for target in draft.targets
            for entry in target.lowered.variant.entries
        ),
    )


def _warnings(draft: _Draft) -> list[str]:
    found = draw_warnings(_present(draft.original))
    for target in draft.targets[:1]:  # the others need about as much
        found += footprint_warnings(footprint(_present(draft.module), target.lowered))
    if not draft.request.verify:
        return [*found, "the bundle was not verified"]
    for target in draft.targets:
        if target.proof is not None and target.proof.method == "tile":
            count, all_launches = len(target.proof.groups), target.proof.launches
            found.append(
                f"{target.config.name}: this machine cannot run it; {count} of {all_launches} launches were sampled "
                "at tile level"
            )
    return found


def _quiet(_event: Event) -> None:
    """Nobody watches."""


def _present(value: T | None) -> T:
    """What an earlier stage made."""
    assert value is not None, "stages run in order"
    return value
