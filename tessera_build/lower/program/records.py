"""What lowering a module gives: the host program, its weights, and a record of every launch through all levels."""

from __future__ import annotations

from dataclasses import dataclass

from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import DType
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.schedule.trace import Schedule
from tessera_build.ir.target.host import Space, Variant


@dataclass(frozen=True, slots=True)
class ValuePlace:
    """Where one graph value is during a launch; `offset_bytes` of its first element, `strides` in elements."""

    value: int
    space: Space
    index: int
    offset_bytes: Extent
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...]
    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """One weight in the order the kernels read it; `source` is the digest of the array it was made from."""

    name: str
    array: Array
    layout: str
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class LaunchRecord:
    """One launch: the task behind it at every level, and where the values are that it reads and writes.

    `depth` is the number of regions around it: a launch of depth 0 runs once a call. `operators`: all that it computes.
    """

    task_name: str
    kind: str
    schedule_function: Function
    schedule: Schedule
    tile_function: Function
    kernel: Function
    reads: tuple[ValuePlace, ...]
    writes: tuple[ValuePlace, ...]
    depth: int = 0
    operators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LoweredVariant:
    """A module lowered for one CPU. `launches`: per entry, in launch order; `nodes`: names by row of `Launch.node`."""

    variant: Variant
    weights: tuple[PackedWeight, ...]
    launches: tuple[tuple[LaunchRecord, ...], ...]
    nodes: tuple[str, ...]
    guards: tuple[str, ...]
    arena_lower_bound: int
