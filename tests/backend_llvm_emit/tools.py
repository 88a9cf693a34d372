"""What the tests of this folder share: a builder of kernels, and the way to run one on this machine.

Takes Python calls; gives Target IR functions, and functions of numpy arrays that run them. Invariant: a kernel runs
through the product's own compiler and linker, loaded by `dlopen`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tessera_build.backends.llvm.emit_kernel import kernel_ir
from tessera_build.backends.llvm.linker.link import link
from tessera_build.backends.llvm.memory import MEMORY_IR
from tessera_build.backends.llvm.objects import CodegenOptions, assembly, compile_ir, native_options
from tessera_build.ir.core.node import Function, Node, Region
from tessera_build.ir.core.types import BOOL, I64, DType, Type, dtype_of, memref, scalar, tile
from tessera_build.ir.target import kernel as t

Array = NDArray[np.generic]


class KernelBuilder:
    """Appends nodes to the innermost open block."""

    def __init__(self, buffers: Sequence[DType], dims: int = 0) -> None:
        self.types: dict[int, Type] = {}
        self.buffers = [self.value(memref(dtype, 0)) for dtype in buffers]
        self.dims = [self.value(scalar(I64)) for _ in range(dims)]
        self.index = self.value(scalar(I64))
        self.blocks: list[list[Node]] = [[]]

    def value(self, type_: Type) -> int:
        number = len(self.types)
        self.types[number] = type_
        return number

    def append(self, node: Node) -> None:
        self.blocks[-1].append(node)

    def const(self, value: float | int, type_: Type) -> int:
        result = self.value(type_)
        self.append(t.Const(result, value))
        return result

    def number(self, value: int) -> int:
        return self.const(value, scalar(I64))

    def op(self, name: str, *operands: int, type_: Type | None = None) -> int:
        first = self.types[operands[1] if name == "select" else operands[0]]
        if name in ("eq", "ne", "lt", "le", "gt", "ge"):
            first = Type(first.container, BOOL, first.shape)
        result = self.value(type_ or first)
        self.append(t.Op(result, name, operands))
        return result

    def load(self, pointer: int, index: int, lanes: int = 0, mask: int | None = None, other: int | None = None) -> int:
        dtype = self.types[pointer].dtype
        result = self.value(tile(dtype, lanes) if lanes else scalar(dtype))
        self.append(t.Load(result, pointer, index, mask, other))
        return result

    def store(self, pointer: int, index: int, value: int, mask: int | None = None) -> None:
        self.append(t.Store(pointer, index, value, mask))

    def loop(
        self, start: int, stop: int, step: int, carried: Sequence[int], body: Callable[..., Sequence[int]]
    ) -> list[int]:
        arguments = [self.value(scalar(I64)), *(self.value(self.types[value]) for value in carried)]
        region = self.region(arguments, lambda: body(*arguments))
        results = tuple(self.value(self.types[value]) for value in carried)
        self.append(t.Loop(results, start, stop, step, tuple(carried), region))
        return list(results)

    def branch(
        self, condition: int, then: Callable[[], Sequence[int]], otherwise: Callable[[], Sequence[int]]
    ) -> list[int]:
        left, right = self.region([], then), self.region([], otherwise)
        results = tuple(self.value(self.types[value]) for value in left.results)
        self.append(t.Branch(results, condition, left, right))
        return list(results)

    def region(self, arguments: Sequence[int], body: Callable[[], Sequence[int]]) -> Region:
        self.blocks.append([])
        results = tuple(body())
        return Region(tuple(arguments), tuple(self.blocks.pop()), results)

    def finish(self, name: str = "kernel") -> Function:
        arguments = (*self.buffers, *self.dims, self.index)
        return Function(name, arguments, tuple(self.blocks[0]), (), self.types)


@functools.cache
def machine() -> CodegenOptions:
    """This machine."""
    return native_options()


@functools.cache
def memory_object() -> bytes:
    """memcpy and friends, compiled once."""
    return compile_ir(MEMORY_IR, machine())


def kernel_assembly(function: Function, cpu: str = "x86-64-v4") -> str:
    """The x86 assembly of a kernel."""
    options = CodegenOptions("x86_64-unknown-linux-gnu", cpu)
    return assembly(kernel_ir(function, options), options)


def run_kernel(
    function: Function, folder: Path, buffers: Sequence[Array], dims: Sequence[int] = (), index: int = 0
) -> int:
    """Compile, link, load and call one kernel; gives its status."""
    code = link([compile_ir(kernel_ir(function, machine(), "kernel"), machine()), memory_object()], ["kernel"], "k.so")
    path = folder / f"k{len(list(folder.iterdir()))}.so"
    path.write_bytes(code)
    entry = ctypes.CDLL(str(path)).kernel
    entry.restype, entry.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int64]
    slots = np.array([*(buffer.ctypes.data for buffer in buffers), *dims, 0], np.int64)
    return int(entry(slots.ctypes.data, index))


def apply(folder: Path, name: str, operands: Sequence[Array], result: Array, lanes: int = 0) -> Array:
    """Run one operation over whole arrays, `lanes` elements at a time; fills and gives `result`."""
    dtypes = [dtype_of(array.dtype) for array in operands]
    builder = KernelBuilder([*dtypes, dtype_of(result.dtype)])
    step = max(1, lanes)

    def body(position: int) -> Sequence[int]:
        loaded = [builder.load(pointer, position, lanes) for pointer in builder.buffers[:-1]]
        out = dtype_of(result.dtype)
        type_ = tile(out, lanes) if lanes else scalar(out)
        builder.store(builder.buffers[-1], position, builder.op(name, *loaded, type_=type_))
        return []

    builder.loop(builder.number(0), builder.number(result.size // step * step), step, [], body)
    assert run_kernel(builder.finish(), folder, [*operands, result]) == 0
    return result
