"""Runs a compiled variant in this process, straight from memory, through the C ABI.

Takes: a variant of the bundle's form (config and layers) that was not written yet.
Gives: `CompiledProgram`: outputs by name, and a look into every launch on the way.
Invariant: the code that is proved here is, byte for byte, the code that the bundle will hold.
"""

import ctypes
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, cast, final

import numpy as np

from bundle_format import media
from bundle_format.digest import Digest
from bundle_format.schema import Config, Entry
from bundle_format.writer import Variant
from tessera_build.ir.core.dims import evaluate
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.target.host import POINTER_BYTES
from tessera_build.lower.program.records import ValuePlace
from tessera_build.verify.aligned import aligned_copy
from tessera_build.verify.inputs import Sizes
from tessera_runtime.arrays import numpy_dtype
from tessera_runtime.cpu.abi import Call, ErrorRecord, Plan, Services
from tessera_runtime.cpu.image import CodeImage
from tessera_runtime.cpu.machine import Machine, normal_arch, normal_feature
from tessera_runtime.cpu.memory import ALLOCATE, take_memory
from tessera_runtime.cpu.pool import PROCESS_POOLS
from tessera_runtime.errors import status_error

_Profile: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32)

# Called with the launch's number and 0 before, 1 after it.
Look = Callable[[int, int, "Memory"], None]


def can_run(config: Config, machine: Machine) -> bool:
    """Whether this machine has everything that a variant's code needs."""
    target = config.target
    known = machine.system == "Linux" and normal_arch(target.arch) == machine.arch
    return known and all(normal_feature(name) in machine.features for name in target.features)


def _filled(context: int | None, size: int, alignment: int) -> int:
    """tessera_services.allocate."""
    address = ALLOCATE(context, size, alignment) or 0
    if address:
        ctypes.memset(address, 0xFF, size)
    return address


_FILLED: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)(_filled)


@final
class Memory:
    """The memory of one call in flight, seen as arrays; a run adds what it allocates to `tables`, those of the call."""

    def __init__(self, tables: "Mapping[str, ctypes.Array[ctypes.c_void_p]]", sizes: Sizes) -> None:
        self._tables = tables
        self._sizes = sizes

    def at(self, place: ValuePlace) -> Array:
        """The array that lies at a place; writing to it writes to the call's memory."""
        shape = tuple(evaluate(extent, self._sizes) for extent in place.shape)
        steps = tuple(evaluate(stride, self._sizes) * place.dtype.bytes for stride in place.strides)
        dtype = place.dtype.numpy
        if 0 in shape:
            return np.empty(shape, dtype)
        address = self._base(place) + evaluate(place.offset_bytes, self._sizes)
        span = dtype.itemsize + sum((extent - 1) * step for extent, step in zip(shape, steps, strict=True))
        memory = memoryview((ctypes.c_char * span).from_address(address)).cast("B")
        return np.ndarray(shape, dtype, memory, 0, steps)

    def _base(self, place: ValuePlace) -> int:
        if place.space != "dynamic":
            return cast(int, self._tables[place.space][place.index])
        # The addresses of dynamic slots are the first words of the arena.
        slot = cast(int, self._tables["arena"][0]) + POINTER_BYTES * place.index
        return ctypes.c_uint64.from_address(slot).value


@final
class CompiledProgram:
    """One variant's code with its weights in memory, ready to be called."""

    def __init__(self, variant: Variant, threads: int) -> None:
        self._config = variant.config
        (code,) = (layer.data for layer in variant.layers if layer.media_type == media.ELF_CODE)
        self._image = CodeImage(memoryview(code))
        self._pool = PROCESS_POOLS.get(self._image, threads)
        self._blobs = {
            Digest.of(layer.data): aligned_copy(np.frombuffer(layer.data, np.uint8))
            for layer in variant.layers
            if layer.media_type == media.WEIGHTS
        }
        self._weights = [_address(self._blobs[weight.digest]) + weight.offset for weight in self._config.weights]

    def run(self, entry: str, inputs: Mapping[str, Array], sizes: Sizes, look: Look | None = None) -> dict[str, Array]:
        """The outputs of one entry; a status other than OK is a `RunError` with the node's name."""
        index = next(i for i, known in enumerate(self._config.entries) if known.name == entry)
        signature, error = self._config.entries[index], ErrorRecord()
        dims = (ctypes.c_int64 * len(signature.dims))(*(sizes[dim.name] for dim in signature.dims))
        feeds = [np.array(inputs[value.name], order="C") for value in signature.inputs]
        workspace, shapes = self._plan(index, dims, error)
        results = {
            i: np.empty(shape, numpy_dtype(value.dtype))
            for i, (value, shape) in enumerate(zip(signature.outputs, shapes, strict=True))
            if i not in signature.dynamic_outputs
        }
        bases = {
            "input": [_address(array) for array in feeds],
            "weight": self._weights,
            "output": [_address(results[i]) if i in results else 0 for i in range(len(shapes))],
            "arena": [_address(workspace)],
        }
        services = self._services()
        found_shapes = (ctypes.c_int64 * max(1, sum(map(len, shapes))))()
        tables = {space: (ctypes.c_void_p * max(1, len(found)))(*found) for space, found in bases.items()}
        hook = _hook(look, Memory(tables, sizes))
        services.profile = ctypes.cast(hook, ctypes.c_void_p) if look else None
        call = Call(
            size=ctypes.sizeof(Call),
            entry=index,
            dims=ctypes.addressof(dims),
            inputs=ctypes.addressof(tables["input"]),
            weights=ctypes.addressof(tables["weight"]),
            outputs=ctypes.addressof(tables["output"]),
            workspace=_address(workspace),
            services=ctypes.addressof(services),
            error=ctypes.addressof(error),
            output_shapes=ctypes.addressof(found_shapes),
        )
        self._check(cast(int, self._image.run(ctypes.addressof(call))), error)
        results |= _allocated(signature, tables["output"], found_shapes)
        return {value.name: results[i] for i, value in enumerate(signature.outputs)}

    def _plan(self, entry: int, dims: object, error: ErrorRecord) -> tuple[Array, list[tuple[int, ...]]]:
        """The workspace and the outputs' shapes for these dims."""
        outputs = self._config.entries[entry].outputs
        extents = (ctypes.c_int64 * max(1, sum(len(value.shape) for value in outputs)))()
        plan = Plan(0, ctypes.addressof(extents))
        arguments = (ctypes.addressof(item) for item in (cast(ctypes.Structure, dims), plan, error))
        self._check(cast(int, self._image.prepare(entry, *arguments)), error)
        rest, shapes = list(extents), list[tuple[int, ...]]()
        for value in outputs:
            shapes.append(tuple(rest[: len(value.shape)]))
            del rest[: len(value.shape)]
        # Filled with NaN, so that a kernel that reads what nothing wrote cannot be right by chance.
        return aligned_copy(np.full(cast(int, plan.workspace_bytes), 0xFF, np.uint8)), shapes

    def _services(self) -> Services:
        """The pool's table, with room for a profile hook of our own and memory as full of NaN as the workspace."""
        services = Services.from_buffer_copy(ctypes.string_at(self._pool.services(), ctypes.sizeof(Services)))
        services.allocate = ctypes.cast(_FILLED, ctypes.c_void_p)
        return services

    def _check(self, status: int, error: ErrorRecord) -> None:
        if status:
            known = cast(int, error.status) == status
            node = cast(int, error.node) if known else -1
            detail = list(cast("list[int]", error.detail)) if known else [0, 0, 0, 0]
            raise status_error(status, node, detail, self._config)


def _allocated(
    signature: Entry, addresses: "ctypes.Array[ctypes.c_void_p]", extents: Iterable[int]
) -> dict[int, Array]:
    """The outputs that a run allocated, by position."""
    rest, taken = iter(extents), dict[int, Array]()
    for index, value in enumerate(signature.outputs if signature.dynamic_outputs else ()):
        shape = tuple(islice(rest, len(value.shape)))
        if index in signature.dynamic_outputs:
            taken[index] = take_memory(cast(int, addresses[index]), numpy_dtype(value.dtype), shape)
    return taken


def _hook(look: Look | None, memory: Memory) -> "ctypes._CFunctionType":  # pyright: ignore[reportPrivateUsage]
    """The C callback; an exception inside would be lost, so `look` must not raise."""

    def profile(_context: int | None, launch: int, phase: int) -> None:
        if look is not None:
            look(launch, phase, memory)

    return _Profile(profile)


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
