"""Small tile programs: a short way to write one, and the comparison of its machine code with the Tile reference.

Takes Python calls; gives Tile functions, and runs them both ways. Invariant: every buffer of the compiled run lies
between canaries, and must come back equal to the reference's bit for bit where the machine fuses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.linker.link import link
from tessera_build.backends.llvm.objects import compile_ir
from tessera_build.ir.core.dims import Extent, evaluate
from tessera_build.ir.core.node import Function, Region
from tessera_build.ir.core.rewrite import FunctionBuilder
from tessera_build.ir.core.scalar import ScalarBuilder
from tessera_build.ir.core.types import F32, I64, DType, memref, tile
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.ir.tile import nodes as t
from tessera_build.ir.tile import reference
from tessera_build.lower.tile_to_target.cpu import lower_cpu
from tests.backend_llvm_emit.tools import machine as processor
from tests.backend_llvm_emit.tools import memory_object

WIDE = CpuMachine("wide", lanes=16, registers=32, fused=True)
MIDDLE = CpuMachine("middle", lanes=8, registers=16, fused=True)
NARROW = CpuMachine("narrow", lanes=4, registers=16, fused=True)
UNFUSED = CpuMachine("unfused", lanes=8, registers=16, fused=False)
MACHINES = (WIDE, MIDDLE, NARROW, UNFUSED)
CANARY = 0xA5
Axes = Sequence[t.ViewAxis | int]
Shape = Sequence[int]


class Program:
    """A Tile function under construction."""

    def __init__(self) -> None:
        self.builder = FunctionBuilder("kernel")

    def buffer(self, *shape: Extent, dtype: DType = F32) -> int:
        return self.builder.arg(memref(dtype, *shape))

    def alloc(self, *shape: int, dtype: DType = F32) -> int:
        return self.builder.emit(lambda r: t.Alloc(r), memref(dtype, *shape))

    def view(
        self, buffer: int, shape: Shape, offsets: Sequence[Extent], axes: Axes, gather: tuple[int, int] | None = None
    ) -> int:
        """Numbers in `axes` are unchecked steps of 1; `gather` is (index tile, axis)."""
        walks = tuple(a if isinstance(a, t.ViewAxis) else t.ViewAxis(a) for a in axes)
        indices, axis = gather or (None, -1)
        kind = memref(self.builder.types[buffer].dtype, *shape)
        return self.builder.emit(lambda r: t.View(r, buffer, tuple(offsets), walks, indices, axis), kind)

    def load(self, view: int, pad: float = 0.0) -> int:
        kind = self.builder.types[view]
        return self.builder.emit(lambda r: t.Load(r, view, pad), tile(kind.dtype, *kind.static_shape))

    def whole(self, buffer: int) -> int:
        """All of a buffer of static shape as one tile."""
        return self.load(self.all_of(buffer))

    def all_of(self, buffer: int) -> int:
        shape = self.builder.types[buffer].static_shape
        return self.view(buffer, shape, (0,) * len(shape), range(len(shape)))

    def store(self, view: int, value: int) -> None:
        self.builder.add(t.Store(view, value))

    def put(self, value: int) -> int:
        """A new output buffer that holds a tile."""
        kind = self.builder.types[value]
        buffer = self.buffer(*kind.shape, dtype=kind.dtype)
        self.store(self.all_of(buffer), value)
        return buffer

    def map(self, operands: Sequence[int], build: Callable[[ScalarBuilder], int]) -> int:
        scalars = ScalarBuilder([self.builder.types[o].dtype for o in operands])
        program = scalars.finish(build(scalars))
        shape = np.broadcast_shapes(*(self.builder.types[o].static_shape for o in operands))
        kind = tile(program.dtype(program.results[0]), *shape)
        return self.builder.emit(lambda r: t.Map(r, tuple(operands), program), kind)

    def fill(self, value: float, shape: Shape, dtype: DType = F32) -> int:
        scalars = ScalarBuilder(())
        program = scalars.finish(scalars.const(value, dtype))
        return self.builder.emit(lambda r: t.Map(r, (), program), tile(dtype, *shape))

    def iota(self, shape: Shape, axis: int, offset: Extent = 0, dtype: DType = I64) -> int:
        return self.builder.emit(lambda r: t.Iota(r, axis, offset), tile(dtype, *shape))

    def contract(self, spec: str, acc: int, a: int, b: int) -> int:
        return self.builder.emit(lambda r: t.Contract(r, acc, a, b, spec), self.builder.types[acc])

    def reduce(self, operand: int, axes: tuple[int, ...], order: str = "seq", op: str = "add") -> int:
        kind = self.builder.types[operand]
        scalars = ScalarBuilder((kind.dtype, kind.dtype))
        program = scalars.finish(scalars.op(op, 0, 1))
        identity = {"add": 0.0, "mul": 1.0, "max": -np.inf, "min": np.inf}[op]
        kept = tile(kind.dtype, *(1 if a in axes else e for a, e in enumerate(kind.static_shape)))
        result = self.builder.value(kept)
        self.builder.add(t.Reduce((result,), (operand,), axes, program, (identity,), order))
        return result

    def permute(self, operand: int, permutation: tuple[int, ...]) -> int:
        kind = self.builder.types[operand]
        shape = [kind.static_shape[p] for p in permutation]
        return self.builder.emit(lambda r: t.Permute(r, operand, permutation), tile(kind.dtype, *shape))

    def loop(
        self,
        index: str,
        extent: Extent,
        step: int,
        body: Callable[..., Sequence[int]],
        carried: Sequence[int] = (),
        scope: str | None = None,
    ) -> tuple[int, ...]:
        types = [self.builder.types[c] for c in carried]
        with self.builder.region(types) as region:
            region.yields(*body(*region.args))
        results = self.builder.values(types)
        binding = t.Binding(scope=scope) if scope else None
        self.builder.add(t.For(results, index, extent, step, tuple(carried), region.region, binding))
        return results

    def branch(
        self, test: tuple[Extent, t.Relation, Extent], then: Callable[[], int], otherwise: Callable[[], int]
    ) -> int:
        regions: list[Region] = []
        for build in (then, otherwise):
            with self.builder.region() as region:
                region.yields(build())
            regions.append(region.region)
        result = self.builder.value(self.builder.types[regions[0].results[0]])
        self.builder.add(t.If((result,), *test, regions[0], regions[1]))
        return result

    def finish(self, *dims: str, strides: Sequence[Sequence[Extent]] = ()) -> Function:
        return self.builder.finish((), {"dims": dims, "strides": tuple(tuple(s) for s in strides)})


def random(function: Function, dims: Mapping[str, int], seed: int = 0) -> list[Array]:
    """A buffer of random numbers for every argument."""
    rng = np.random.default_rng(seed)
    made: list[Array] = []
    for value in function.args:
        kind = function.types[value]
        shape = [evaluate(e, dims) for e in kind.shape]
        numbers = (
            rng.standard_normal(shape)
            if kind.dtype.is_float
            else rng.integers(0, 2 if kind.dtype.bits == 1 else 5, shape)
        )
        made.append(numbers.astype(kind.dtype.numpy))
    return made


def guarded(array: Array) -> tuple[Array, Array]:
    """A copy of an array (its strides kept) in memory with canaries around it; gives (copy, all of that memory)."""
    span = (
        sum((e - 1) * s for e, s in zip(array.shape, array.strides, strict=True)) + array.itemsize if array.size else 0
    )
    memory = np.full(span + 512, CANARY, np.uint8)
    start = -memory.ctypes.data % 64 + 64
    copy = np.ndarray(array.shape, array.dtype, memory.data, start, array.strides)
    copy[...] = array
    return copy, memory


def execute(
    function: Function, folder: Path, machine: CpuMachine, buffers: Sequence[Array], dims: Mapping[str, int]
) -> int:
    """Lower, compile and run every parallel iteration; gives the first status that is not 0."""
    lowered = lower_cpu(function, machine, dict.fromkeys(dims, (0, None)))
    options = processor()
    code = link(
        [compile_ir(kernel_ir(lowered.kernel, options, "kernel"), options), memory_object()], ["kernel"], "k.so"
    )
    path = folder / f"k{len(list(folder.iterdir()))}.so"
    path.write_bytes(code)
    entry = ctypes.CDLL(str(path)).kernel
    entry.restype, entry.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int64]
    names = function.names("dims")
    slots = np.array([*(b.ctypes.data for b in buffers), *(dims[n] for n in names), 0], np.int64)
    statuses = [int(entry(slots.ctypes.data, index)) for index in range(evaluate(lowered.parallel_count, dims))]
    return next((s for s in statuses if s), 0)


def check(
    function: Function,
    folder: Path,
    machine: CpuMachine = WIDE,
    dims: Mapping[str, int] | None = None,
    buffers: Sequence[Array] | None = None,
) -> None:
    """The machine code leaves in every buffer what the reference interpreter leaves there."""
    sizes = dict(dims or {})
    given = list(buffers) if buffers is not None else random(function, sizes)
    expected = [guarded(b)[0] for b in given]
    reference.run(function, expected, sizes)
    found = [guarded(b) for b in given]
    outside = [_outside(copy, memory) for copy, memory in found]
    assert execute(function, folder, machine, [copy for copy, _ in found], sizes) == 0
    for position, ((copy, memory), right) in enumerate(zip(found, expected, strict=True)):
        assert (memory[outside[position]] == CANARY).all(), f"buffer {position}: a store left the buffer"
        _compare(copy, right, position, machine.fused)


def _outside(copy: Array, memory: Array) -> NDArray[np.bool_]:
    """Which bytes of the memory no element covers."""
    covered = np.zeros(memory.shape, np.uint8)
    start = copy.ctypes.data - memory.ctypes.data
    np.ndarray((*copy.shape, copy.itemsize), np.uint8, covered.data, start, (*copy.strides, 1))[...] = 1
    return np.equal(covered, 0)


def _bits(array: Array) -> bytes:
    """The bytes of an array, with one zero: neither numpy nor Target IR says which one max(0, -0) is."""
    return np.where(np.equal(array, 0), np.zeros((), array.dtype), array).tobytes()


def _compare(found: Array, expected: Array, position: int, exact: bool) -> None:
    if exact or not np.issubdtype(expected.dtype, np.floating):
        same = _bits(found) == _bits(expected)
        message = f"buffer {position}:\n{found}\nexpected\n{expected}"
        assert same, message
        return
    np.testing.assert_allclose(
        np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=1e-5, atol=1e-5, err_msg=str(position)
    )
