"""One lowered and compiled variant in the form of the bundle: config, IR layers, code, header, weights.

Takes: `Parts`, everything that a build made for one target.
Gives: a `bundle_format` variant, ready to be proved and written.
Invariant: the bytes are a function of the model, the target, the options and the tools' versions alone; equal weights
and equal kernels are stored once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from bundle_format import media
from bundle_format.abi import header_bytes
from bundle_format.canonical import Json, canonical_bytes
from bundle_format.digest import Digest
from bundle_format.dims import parse_dim
from bundle_format.errors import BundleError
from bundle_format.packed_text import pack_text
from bundle_format.schema import Config, DataSize, DimRange, Entry, Guard, Result, StateAlias, Target, Tool, Value
from bundle_format.schema import Extent as FormatExtent
from bundle_format.weights import WeightData, pack_weights
from bundle_format.writer import Layer, Variant
from tessera_build.config import PrecisionConfig, TargetConfig
from tessera_build.ir.core.attributes import Attr, encode_fields
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.core.node import walk
from tessera_build.ir.core.text.printer import print_container
from tessera_build.ir.core.types import DTYPES, Type, dtype_of
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.ops.sizes import UNBOUNDED
from tessera_build.ir.graph.sizes import data_sizes, entry_dims
from tessera_build.ir.graph.text import print_module
from tessera_build.ir.schedule import text as schedule_text
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.target.host import Entry as HostEntry
from tessera_build.ir.target.host import Launch
from tessera_build.ir.target.text import print_variant
from tessera_build.ir.tile import text as tile_text
from tessera_build.lower.program.records import LaunchRecord, LoweredVariant, PackedWeight
from tessera_build.lower.program.update import updated_in_place

TUNING_FORMAT: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a build made for one target. `symbols` maps a kernel's name to the function that it became.

    `given`: names of tasks whose schedules came with the build.
    """

    module: Module
    lowered: LoweredVariant
    code: bytes
    symbols: Mapping[str, str]
    target: TargetConfig
    precision: PrecisionConfig
    producer: Tool
    tools: tuple[Tool, ...]
    sources: Mapping[str, Digest]
    levels: tuple[str, ...]
    checks: str = ""
    given: frozenset[str] = frozenset()


def make_variant(parts: Parts) -> Variant:
    """The config and the layers of one target."""
    weights, weight_layers = pack_weights(_weight_data(parts.lowered.weights))
    target = parts.target
    workspaces = {entry.name: _workspace(entry.arena_bytes) for entry in parts.lowered.variant.entries}
    entries = tuple(_entry(parts.module, name, workspaces[name]) for name in parts.module.entries)
    config = Config(
        producer=parts.producer,
        target=Target(target.name, target.kind, target.arch, target.features),
        entries=entries,
        weights=weights,
        nodes=parts.lowered.nodes,
        guards=tuple(
            Guard(parse_dim(str(left)), relation, parse_dim(str(right)), message, _place(parts.module, number))
            for number, (left, relation, right, message) in enumerate(parts.module.guards)
        ),
        tools=parts.tools,
        numerics=_numerics(parts.precision) | ({"checks": parts.checks} if parts.checks else {}),
        sources=parts.sources,
    )
    config = config._replace(ignorable=_ignorable(config))
    layers = [Layer(kind, pack_text(text)) for kind, text in _texts(parts)]
    layers += [Layer(media.ELF_CODE, parts.code), Layer(media.C_HEADER, header_bytes())]
    return Variant(config, (*layers, *weight_layers))


def _numerics(precision: PrecisionConfig) -> dict[str, str]:
    return {
        "policy": precision.name,
        "storage": precision.storage,
        "accumulate_contract": precision.accumulate_contract,
        "accumulate_reduce": precision.accumulate_reduce,
        "order": precision.numerics,
    }


def _ignorable(config: Config) -> tuple[str, ...]:
    """Fields that a reader which does not know them may skip: they say more, and change nothing that it does."""
    entries = config.entries
    there = {
        "at": any(guard.at for guard in config.guards),
        "in_place": any(state.in_place for entry in entries for state in entry.states),
        "results": any(entry.results for entry in entries),
        "workspace": any(entry.workspace is not None for entry in entries),
    }
    return tuple(name for name, is_there in there.items() if is_there)


def _place(module: Module, number: int) -> str:
    """Where a guard was asked for."""
    span = module.guard_spans.get(module.guards[number])
    return str(span) if span else ""


def _workspace(arena_bytes: Extent) -> FormatExtent | None:
    """What an entry works in; None where no dimension expression can say it."""
    try:
        return _extent(arena_bytes)
    except BundleError:
        return None


def _entry(module: Module, name: str, workspace: FormatExtent | None) -> Entry:
    function = module.entries[name]
    inputs = tuple(_value(n, function.types[v]) for n, v in zip(module.input_names[name], function.args, strict=True))
    outputs = tuple(
        _value(n, function.types[v]) for n, v in zip(module.output_names[name], function.results, strict=True)
    )
    own = entry_dims(module, name)
    dims = tuple(DimRange(dim, low or 0, high) for dim in own for low, high in [module.dims[dim]])
    pairs = module.states.get(name, ())
    updated = updated_in_place(function, pairs)
    states = tuple(
        StateAlias(
            module.input_names[name][function.args.index(pair.incoming)],
            module.output_names[name][function.results.index(pair.outgoing)],
            pair.outgoing in updated,
        )
        for pair in pairs
    )
    sizes = tuple(
        DataSize(size, None if upper == UNBOUNDED else _extent(upper)) for size, upper in data_sizes(function).items()
    )
    results = tuple(Result(r.name, r.kind, r.outputs, r.labels) for r in module.results.get(name, ()))
    return Entry(name, inputs, outputs, dims, states, sizes, results, workspace)


def _value(name: str, type_: Type) -> Value:
    return Value(name, type_.dtype.name, tuple(_extent(extent) for extent in type_.shape))


def _extent(extent: Extent) -> FormatExtent:
    return extent if isinstance(extent, int) else parse_dim(str(extent))


def _weight_data(weights: Sequence[PackedWeight]) -> list[WeightData]:
    """Weights with unique names: one constant may lie in several layouts."""
    used: set[str] = set()
    found: list[WeightData] = []
    for row, weight in enumerate(weights):
        name = weight.name if weight.name and weight.name not in used else f"{weight.name}#{row}"
        used.add(name)
        array = weight.array
        dtype = next(known for known in DTYPES.values() if known == dtype_of(array.dtype)).name
        found.append(WeightData(name, _bytes(array), dtype, array.shape, weight.layout, Digest.parse(weight.source)))
    return found


def _bytes(array: Array) -> memoryview:
    """The array's own memory, row-major; extended types have no buffer protocol, hence bytes."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data.cast("B")


def _texts(parts: Parts) -> list[tuple[str, str]]:
    """(media type, text) of every level that was asked for, and of the tuning records."""
    records = [record for launches in parts.lowered.launches for record in launches]
    writers = {
        "graph": (media.GRAPH_IR, lambda: print_module(parts.module, locations=True)),
        "schedule": (media.SCHEDULE_IR, lambda: _schedule_text(records)),
        "tile": (media.TILE_IR, lambda: _tile_text(records, parts.symbols)),
        "target": (media.TARGET_IR, lambda: print_variant(parts.lowered.variant)),
    }
    texts = [(kind, write()) for level, (kind, write) in writers.items() if level in parts.levels]
    return [*texts, (media.TUNING, _tuning_text(records, parts))]


def _schedule_text(records: Sequence[LaunchRecord]) -> str:
    """One `tsched.task` per task that has a schedule, in the order of launches."""
    tasks: list[str] = []
    for record in _scheduled(records):
        function = schedule_text.print_function(record.schedule_function)
        names = tuple(name for name in record.operators if name != record.task_name)
        attributes: dict[str, Attr] = {"node": record.task_name, "trace": _steps(record.schedule)}
        attributes |= {"fused": names} if names else {}
        tasks.append(print_container("tsched.task", attributes, [function]))
    return print_container("tsched.program", {}, tasks)


def _tile_text(records: Sequence[LaunchRecord], symbols: Mapping[str, str]) -> str:
    """One `ttile.kernel` per distinct kernel, with the names of all operators that it serves."""
    texts: dict[str, str] = {}
    nodes: dict[str, list[str]] = {}
    for record in records:
        symbol = symbols[record.kernel.name]
        if symbol not in texts:
            texts[symbol] = tile_text.print_function(record.tile_function)
        nodes.setdefault(symbol, []).extend((record.task_name, *record.operators))
    kernels = [
        print_container("ttile.kernel", {"symbol": symbol, "nodes": tuple(dict.fromkeys(nodes[symbol]))}, [text])
        for symbol, text in texts.items()
    ]
    return print_container("ttile.program", {}, kernels)


def _tuning_text(records: Sequence[LaunchRecord], parts: Parts) -> str:
    """How each schedule came to be (until a tuner has measured, by the rules or by hand), and what each launch runs."""
    tasks = {
        hash_function(record.schedule_function).hex: {
            "origin": "given" if record.task_name in parts.given else "rules",
            "trace": [_plain(step) for step in _steps(record.schedule)],
        }
        for record in _scheduled(records)
    }
    launches = {entry.name: _launch_rows(entry, parts) for entry in parts.lowered.variant.entries}
    return canonical_bytes(cast(Json, {"format": TUNING_FORMAT, "tasks": tasks, "launches": launches})).decode()


def _launch_rows(entry: HostEntry, parts: Parts) -> list[dict[str, str]]:
    """Each launch as profiles number them: the node's name, the kernel that it runs, and how many iterations."""
    nodes, symbols = parts.lowered.nodes, parts.symbols
    launches = (node for node in walk(entry.nodes) if isinstance(node, Launch))
    return [{"node": nodes[n.node], "kernel": symbols[n.kernel], "count": str(n.count)} for n in launches]


def _scheduled(records: Sequence[LaunchRecord]) -> list[LaunchRecord]:
    """The main version of each task; borders and copies have definitions of their own."""
    seen: set[int] = set()
    found: list[LaunchRecord] = []
    for record in records:
        if id(record.schedule_function) not in seen and (record.reads or record.writes):
            seen.add(id(record.schedule_function))
            found.append(record)
    return found


def _steps(schedule: Schedule) -> tuple[dict[str, Attr], ...]:
    return tuple({"step": type(step).__name__.lower()} | encode_fields(step) for step in schedule.steps)


def _plain(value: Attr) -> object:
    """An attribute as JSON."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value if isinstance(value, bool | int | float | str) else str(value)
