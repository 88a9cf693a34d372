"""What a bundle holds, as text for people.

Takes: the path of a bundle; optionally a target, a level and an operator.
Gives: a summary, the text of one level, or assembly.
Invariant: shows what the bundle holds; assembly is made again from its IR by the compiler's own version of LLVM, so it
is that of the bundle when the tools' versions are those that the bundle names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.dims import DimExpression
from bundle_format.reader import Bundle, VariantRecord, open_bundle
from bundle_format.schema import Config, Entry, Value
from tessera_build.backends.llvm.variant import LlvmBackend
from tessera_build.config import ConfigError, TargetConfig, load_target
from tessera_build.config.near import did_you_mean
from tessera_build.driver.footprint import Workspace, workspace
from tessera_build.driver.machine import machine_of, options_of
from tessera_build.driver.opened import LEVELS, level_text, proofs_of, variant_named
from tessera_build.ir.core.dims import Range, parse_extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.target.host import Variant
from tessera_build.ir.target.text import parse_variant, print_function
from tessera_build.ir.tile.text import parse_function
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tessera_build.verify.proof import Proof

ASSEMBLY = "asm"
_CONTAINER = re.compile(r"^  \".*?^  \}\).*?$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class VariantSummary:
    """One variant: what it needs, how big it is, how it was proved."""

    target: str
    arch: str
    features: tuple[str, ...]
    code_bytes: int
    ir_bytes: int
    weights: int
    weight_bytes: int
    operators: int
    proof: Proof | None
    workspaces: tuple[Workspace, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One bundle. `signature` has a line for each input and output; `sources` and `tools` say what it was made of."""

    path: Path
    digest: Digest
    producer: str
    signature: tuple[str, ...]
    variants: tuple[VariantSummary, ...]
    tools: tuple[str, ...]
    sources: tuple[str, ...]


def identity(path: str | Path) -> Digest:
    """The digest of a bundle, alone."""
    with open_bundle(path) as bundle:
        return bundle.identity


def summary(path: str | Path, target: str | None = None) -> Summary:
    """What a bundle holds, all its variants or that of one target; its weights are not read."""
    with open_bundle(path) as bundle:
        variants = bundle.variants if target is None else (variant_named(bundle, target),)
        config, proofs = variants[0].config, proofs_of(bundle)
        return Summary(
            path=Path(path),
            digest=bundle.identity,
            producer=f"{config.producer.name} {config.producer.version}",
            signature=tuple(line for entry in config.entries for line in _signature(entry)),
            variants=tuple(_variant(variant, proofs) for variant in variants),
            tools=tuple(f"{tool.name} {tool.version}" for tool in config.tools),
            sources=tuple(f"{name} {digest}" for name, digest in sorted(config.sources.items())),
        )


def _variant(variant: VariantRecord, proofs: dict[str, Proof]) -> VariantSummary:
    config = variant.config
    sizes = {kind: sum(layer.size for layer in variant.layers(kind)) for kind in media.LAYERS}
    return VariantSummary(
        target=config.target.name,
        arch=config.target.arch,
        features=config.target.features,
        code_bytes=sizes[media.ELF_CODE],
        ir_bytes=sum(sizes[kind] for kind in LEVELS.values()),
        weights=len(config.weights),
        weight_bytes=sizes[media.WEIGHTS],
        operators=len(config.nodes),
        proof=proofs.get(config.target.name),
        workspaces=tuple(_workspaces(config)),
    )


def _workspaces(config: Config) -> Iterator[Workspace]:
    for entry in config.entries:
        if entry.workspace is not None:
            ranges: dict[str, Range] = {dim.name: (dim.min, dim.max) for dim in entry.dims}
            size = entry.workspace if isinstance(entry.workspace, int) else parse_extent(entry.workspace.text)
            yield workspace(config.target.name, entry.name, size, ranges)


def _signature(entry: Entry) -> Iterator[str]:
    for kind, values in (("input", entry.inputs), ("output", entry.outputs)):
        for value in values:
            yield f"{entry.name}: {kind} {value.name}: {value.dtype} {shape_text(value)}"
    for dim in entry.dims:
        yield f"{entry.name}: dim {dim.name}: {dim.min} to {'any size' if dim.max is None else dim.max}"


def shape_text(value: Value) -> str:
    """A shape as a person writes it."""
    extents = (extent.text if isinstance(extent, DimExpression) else str(extent) for extent in value.shape)
    return "[" + ", ".join(extents) + "]"


def show_level(path: str | Path, level: str, target: str | None = None, operator: str | None = None) -> str:
    """The text of `level` (one of `LEVELS`, or `asm`), all of it or the parts of one operator."""
    with open_bundle(path) as bundle:
        variant = variant_named(bundle, target)
        if operator is not None and operator not in operators_of(bundle, variant):
            raise _unknown_operator(operator, operators_of(bundle, variant))
        if level == ASSEMBLY:
            return "\n".join(_assembly(bundle, variant, operator))
        if level == "target" and (operator is not None or not variant.layers(media.TARGET_IR)):
            return "\n".join(print_function(kernel) for kernel in _kernels(bundle, variant, operator))
        text = level_text(bundle, variant, level)
        return text if operator is None else "".join(_parts_of(text, level, operator))


def operators_of(bundle: Bundle, variant: VariantRecord) -> tuple[str, ...]:
    """Names of operators: those that begin a task, and those that were fused into one."""
    found = dict.fromkeys(variant.config.nodes)
    if variant.layers(media.GRAPH_IR):
        found |= dict.fromkeys(re.findall(r'loc\("((?:[^"\\]|\\.)*)"', level_text(bundle, variant, "graph")))
    return tuple(found)


def _parts_of(text: str, level: str, operator: str) -> Iterator[str]:
    """The nodes (graph) or the tasks and kernels (below) that carry an operator's name."""
    if level == "graph":
        quoted = f'loc("{operator}"'
        yield from (line.strip() + "\n" for line in text.splitlines() if quoted in line)
        return
    yield from (part for part in containers(text) if operator in _NAME.findall(part.partition("\n")[0]))


def containers(text: str) -> list[str]:
    """The tasks or kernels of a program, which the printer puts two columns further in."""
    parts: list[str] = _CONTAINER.findall(text)
    return ["".join(line.removeprefix("  ") + "\n" for line in part.splitlines()) for part in parts]


def _assembly(bundle: Bundle, variant: VariantRecord, operator: str | None) -> Iterator[str]:
    backend = LlvmBackend()
    options = options_of(_target(variant), backend.tools())
    for kernel in _kernels(bundle, variant, operator):
        yield backend.assembly(kernel, options)


def _kernels(bundle: Bundle, variant: VariantRecord, operator: str | None) -> list[Function]:
    """The Target IR of one operator's kernels, or of all: stored, or lowered again from the stored Tile IR."""
    if variant.layers(media.TARGET_IR) and (operator is None or not variant.layers(media.TILE_IR)):
        return _stored_kernels(parse_variant(level_text(bundle, variant, "target")), variant, operator)
    machine = machine_of(_target(variant))
    ranges: dict[str, Range] = {dim.name: (dim.min, dim.max) for entry in variant.config.entries for dim in entry.dims}
    text = level_text(bundle, variant, "tile")
    parts = containers(text) if operator is None else _parts_of(text, "tile", operator)
    return [lower_cpu(parse_function(inner_of(part)), machine, ranges).kernel for part in parts]


def _stored_kernels(found: Variant, variant: VariantRecord, operator: str | None) -> list[Function]:
    launches = [launch for entry in found.entries for launch in entry.launches]
    names = {node.kernel for node in launches if operator in (None, variant.config.nodes[node.node])}
    return [kernel for kernel in found.kernels if kernel.name in names]


def inner_of(part: str) -> str:
    """The function inside a container: everything between its first and its last line."""
    return "\n".join(part.strip().splitlines()[1:-1])


def _target(variant: VariantRecord) -> TargetConfig:
    name = variant.config.target.name
    try:
        return load_target(name)
    except ConfigError as error:
        error.hint = "only targets that come with Tessera can be shown as assembly"
        raise


def _unknown_operator(operator: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        "OPERATOR_UNKNOWN",
        "the bundle has no operator of this name",
        found=operator,
        expected=", ".join(known[:8]) + (", …" if len(known) > 8 else ""),
        hint=did_you_mean(operator, known),
    )
