"""The memory of one call in flight: argument tables, the plan for the last sizes, the workspace.

Takes: the parts that all calls of an entry share.
Gives: `Frame`, which one thread at a time holds and which is reused by the next call.
Invariant: a frame keeps alive everything that its tables point to, so a call in flight survives `close()`.
"""

import ctypes
import itertools
import math
import mmap
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast, final

import numpy as np

from bundle_format.schema import Config, Entry, Extent, Value
from tessera_runtime.arrays import Array, numpy_dtype
from tessera_runtime.binding import DimBinder
from tessera_runtime.cpu.abi import Call, ErrorRecord, Plan
from tessera_runtime.cpu.available import shortage
from tessera_runtime.cpu.image import CodeImage
from tessera_runtime.cpu.memory import take_memory
from tessera_runtime.cpu.pool import Pool
from tessera_runtime.errors import RunError, status_error
from tessera_runtime.limits import Stop

_PAGE_BYTES = mmap.PAGESIZE
# Extents that no code writes, and room for those of outputs that a signature leaves out: damaged, it is refused. Code
# of formats before 1.4 does not say how many outputs it has.
_UNTOLD, _SPARE = -2, 1024
Shape = tuple[int, ...]


class WeightTable(NamedTuple):
    """Addresses of the weights in ABI order, and the mappings that they point into."""

    addresses: "ctypes.Array[ctypes.c_void_p]"
    mappings: tuple[memoryview, ...]


class Program(NamedTuple):
    """What all calls of one model share."""

    config: Config
    image: CodeImage
    pool: Pool
    weights: WeightTable


class Sink(NamedTuple):
    """An output of the planned call; `size` in bytes. An extent that depends on data is -1, and `size` then nothing."""

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape
    size: int


@final
class Frame:
    """One call's tables. `inputs` and `outputs` take addresses; `sinks` is valid after `plan_for`."""

    def __init__(self, program: Program, entry_index: int, binder: DimBinder) -> None:
        self._program = program
        self._entry: Entry = program.config.entries[entry_index]
        self._binder = binder
        self._shapes: tuple[Shape, ...] | None = None
        self._pool, self._image = program.pool, program.image
        self.sinks: tuple[Sink, ...] = ()
        self.inputs = (ctypes.c_void_p * len(self._entry.inputs))()
        self.outputs = (ctypes.c_void_p * len(self._entry.outputs))()
        self._dims = (ctypes.c_int64 * len(self._entry.dims))()
        self._planned = sum(len(value.shape) for value in self._entry.outputs)
        self._allocated = _allocated_outputs(self._entry)
        untold = [_UNTOLD] * (self._planned + _SPARE)
        self._extents = (ctypes.c_int64 * len(untold))(*untold)
        self._found = (ctypes.c_int64 * len(self._extents))()
        self._error = ErrorRecord()
        self._workspace, self._workspace_bytes = _map_workspace(_PAGE_BYTES), _PAGE_BYTES
        self._plan = Plan(0, ctypes.addressof(self._extents))
        self._call = Call(
            size=ctypes.sizeof(Call),
            entry=entry_index,
            dims=ctypes.addressof(self._dims),
            inputs=ctypes.addressof(self.inputs),
            weights=ctypes.addressof(program.weights.addresses),
            outputs=ctypes.addressof(self.outputs),
            workspace=ctypes.addressof(self._workspace),
            error=ctypes.addressof(self._error),
            output_shapes=ctypes.addressof(self._found),
        )
        self._call_address = ctypes.addressof(self._call)
        self._services = 0

    def plan_for(self, shapes: tuple[Shape, ...]) -> None:
        """Bind dims, check guards, size the workspace and the outputs; nothing to do for the sizes of the last call."""
        if shapes == self._shapes:
            return
        self._shapes = None
        for index, value in enumerate(self._binder.bind(shapes)):
            self._dims[index] = value
        image, plan, error = self._image, self._plan, self._error
        entry, dims = cast(int, self._call.entry), ctypes.addressof(self._dims)
        status = cast(int, image.prepare(entry, dims, ctypes.addressof(plan), ctypes.addressof(error)))
        if status:
            raise self._failure(status)
        if self._extents[self._planned] != _UNTOLD:
            raise RunError("CODE_MISMATCH", "the code plans more outputs than the signature", where=self._entry.name)
        self._reserve(cast(int, plan.workspace_bytes))
        self.sinks = tuple(self._planned_sinks())
        self._shapes = shapes

    @property
    def workspace_bytes(self) -> int:
        """How much memory the workspace may take."""
        return self._workspace_bytes

    def run(self, stop: Stop | None = None) -> None:
        """Run the entry on the addresses in the tables; `stop` may end it between two launches."""
        pool = self._pool
        services = pool.address or pool.services()
        if stop is not None:
            services = stop.table(services)
        if services != self._services:
            self._call.services = self._services = services
        status = self._image.run(self._call_address)
        if status:
            error = self._failure(cast(int, status))
            raise error if stop is None else stop.explain(error)

    def take_outputs(self) -> dict[int, Array]:
        """The outputs that the last run allocated, by position; from now on the arrays own the memory."""
        taken: dict[int, Array] = {}
        for index, dtype, place in self._allocated:
            address = self.outputs[index]
            if address:
                self.outputs[index] = None
                taken[index] = take_memory(address, dtype, tuple(self._found[place]))
        return taken

    def _planned_sinks(self) -> Iterator[Sink]:
        for value, shape in self._split_shapes(self._extents):
            if not all(self._agree(declared, found) for declared, found in zip(value.shape, shape, strict=True)):
                raise RunError("CODE_MISMATCH", "the code plans another shape than the signature", where=value.name)
            dtype = numpy_dtype(value.dtype)
            yield Sink(value.name, dtype, shape, math.prod(shape) * dtype.itemsize)

    def _agree(self, declared: Extent, found: int) -> bool:
        if isinstance(declared, int):
            return declared == found
        return found == -1 if self._entry.depends_on_data(declared) else found >= 0

    def _split_shapes(self, extents: Iterable[int]) -> Iterator[tuple[Value, Shape]]:
        rest = iter(extents)
        for value in self._entry.outputs:
            yield value, tuple(itertools.islice(rest, len(value.shape)))

    def _reserve(self, size: int) -> None:
        """Grow the workspace; it never shrinks, since the sizes of the past are the best guess of those to come."""
        if size > self._workspace_bytes:
            self._workspace = _map_workspace(size)
            self._workspace_bytes = size
            self._call.workspace = ctypes.addressof(self._workspace)

    def _failure(self, status: int) -> RunError:
        error = self._error
        same = cast(int, error.status) == status
        node, detail = (cast(int, error.node), list(cast("list[int]", error.detail))) if same else (-1, [0, 0, 0, 0])
        self._error.status = 0  # a later failure that fills nothing in must not inherit this one's node
        return status_error(status, node, detail, self._program.config)


def _allocated_outputs(entry: Entry) -> tuple[tuple[int, np.dtype[np.generic], slice], ...]:
    """The outputs that a run allocates: position, element type, and where their extents lie among those of all.

    Found once for a frame: asking the signature in every run took 40 us for each output of a model with twelve.
    """
    ends = list(itertools.accumulate((len(value.shape) for value in entry.outputs), initial=0))
    dtypes = [numpy_dtype(value.dtype) for value in entry.outputs]
    return tuple((index, dtypes[index], slice(*ends[index : index + 2])) for index in entry.dynamic_outputs)


def _map_workspace(size: int) -> "ctypes.Array[ctypes.c_char]":
    """Fresh pages: aligned, zero, taken from the system only when touched. Private, or a child after `fork` would
    compute in its parent's memory.
    """
    there = shortage(size)
    if there is not None:
        raise RunError(
            "OUT_OF_MEMORY",
            "there is not enough memory for this run",
            expected=f"at most {there} bytes, which this process can still take",
            found=f"{size} bytes",
        )
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise RunError("OUT_OF_MEMORY", "there is not enough memory for this run", found=f"{size} bytes") from error
    return (ctypes.c_char * size).from_buffer(pages)
