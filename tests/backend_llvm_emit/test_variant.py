"""A whole CPU variant, built, loaded and driven through the C ABI by ctypes.

Takes a two-entry variant of small kernels; gives its outputs, statuses and records. Invariant: everything goes
through the exported functions, as a C caller would.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tessera_build.backends.interface import Backend, TargetOptions, Work
from tessera_build.backends.llvm.cache import ObjectCache
from tessera_build.backends.llvm.emit_host import HOST_EXPORTS
from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.objects import native_options
from tessera_build.backends.llvm.variant import LlvmBackend, build_cpu_variant
from tessera_build.ir.core.dims import floordiv, maximum, minimum, mod, symbol
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import F32
from tessera_build.ir.target.host import Buffer, Entry, Guard, Launch, Variant
from tessera_build.ir.target.kernel import Check
from tests.backend_llvm_emit.tools import KernelBuilder

pytestmark = pytest.mark.numerics

BODY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)
PARALLEL_FOR = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, BODY, ctypes.c_void_p, ctypes.c_int64)
PROFILE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32)
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
N = symbol("N")


class Services(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("parallel_for", PARALLEL_FOR),
        ("thread_and_semaphore", ctypes.c_void_p * 5),
        ("profile", PROFILE),
        ("cancel", ctypes.POINTER(ctypes.c_int32)),
    )


class Error(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int32), ("node", ctypes.c_int32), ("detail", ctypes.c_int64 * 4))


class Call(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("entry", ctypes.c_uint32),
        ("dims", ctypes.c_void_p),
        ("inputs", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("services", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
    )


class Plan(ctypes.Structure):
    _fields_ = (("workspace_bytes", ctypes.c_uint64), ("output_shapes", ctypes.c_void_p))


def add_kernel(name: str) -> Function:
    """out[index * step + i] = x[...] + w[i] for i below step; fails where an index reaches the limit."""
    builder = KernelBuilder([F32, F32, F32], dims=2)
    x, w, out = builder.buffers
    step, limit = builder.dims
    builder.append(Check(builder.op("lt", builder.index, limit), 1))
    base = builder.op("mul", builder.index, step)

    def body(i: int) -> Sequence[int]:
        place = builder.op("add", base, i)
        builder.store(out, place, builder.op("add", builder.load(x, place), builder.load(w, i)))
        return []

    builder.loop(builder.number(0), step, 1, [], body)
    return builder.finish(name)


def example() -> Variant:
    """main: out = (x + w) + w through the arena, in N blocks of 4; single: one block."""
    arena, weight = Buffer("arena", 0, 64 * floordiv(N, 2)), Buffer("weight", 1)
    nodes = (
        Guard(1, "le", N, 0),
        Guard(mod(N, 7), "ne", 6, 3),
        Launch("first", N, (Buffer("input"), weight, arena), (4, 1000), 5),
        Launch("second", N, (arena, weight, Buffer("output", 1)), (4, maximum(N - 90, 1000) - N * N), 6),
    )
    shapes = ((), (N, 4), (minimum(N, 10), N * N - N, floordiv(N - 5, 3), mod(N - 5, 3)))
    main = Entry("main", ("N",), nodes, 64 * floordiv(N, 2) + 16 * N, shapes)
    launch = Launch("first", 1, (Buffer("input", 0, 16), weight, Buffer("output")), (4, 9), 2)
    single = Entry("single", (), (launch,), 0, ((4,),))
    return Variant((main, single), (add_kernel("first"), add_kernel("second")), 2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave."""

    status: int
    error: Error
    outputs: list[np.ndarray]
    launches: list[tuple[int, int]]
    loops: list[int]


class Library:
    """A loaded variant."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.functions.tessera_describe.restype = ctypes.c_char_p
        self.functions.tessera_signature.restype = ctypes.c_char_p

    def prepare(self, entry: int, dims: Sequence[int], outputs: int) -> tuple[int, int, list[int], Error]:
        values = np.array([*dims, 0], np.int64)
        shapes = np.full(outputs, -99, np.int64)
        plan, error = Plan(0, shapes.ctypes.data), Error()
        status = self.functions.tessera_prepare(
            ctypes.c_uint32(entry), ctypes.c_void_p(values.ctypes.data), ctypes.byref(plan), ctypes.byref(error)
        )
        return status, plan.workspace_bytes, shapes.tolist(), error

    def run(
        self, entry: int, dims: Sequence[int], cancel: int | None = None, change: Callable[[Call], None] | None = None
    ) -> Outcome:
        launches: list[tuple[int, int]] = []
        loops: list[int] = []

        def parallel_for(_context: int, body: Callable[[int, int], int], argument: int, count: int) -> int:
            loops.append(count)
            return next((status for i in range(count) if (status := body(argument, i))), 0)

        flag = ctypes.c_int32(cancel or 0)
        services = Services(size=96, version=1, parallel_for=PARALLEL_FOR(parallel_for))
        services.profile = PROFILE(lambda _context, launch, phase: launches.append((launch, phase)))
        if cancel is not None:
            services.cancel = ctypes.pointer(flag)
        outputs = [np.zeros(4000, np.float32) for _ in range(3)]
        weights = [np.zeros(4, np.float32), np.array([1, 10, 100, 1000], np.float32)]
        tables = [self._table(arrays) for arrays in ([INPUT], weights, outputs)]
        values, workspace, error = np.array([*dims, 0], np.int64), np.zeros(8000, np.float64), Error()
        call = Call(64, entry, values.ctypes.data, *(table.ctypes.data for table in tables), workspace.ctypes.data)
        call.services, call.error = ctypes.addressof(services), ctypes.addressof(error)
        if change:
            change(call)
        status = self.functions.tessera_run(ctypes.byref(call))
        return Outcome(status, error, outputs, launches, loops)

    @staticmethod
    def _table(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([array.ctypes.data for array in arrays], np.uint64)


INPUT = np.arange(4000, dtype=np.float32)
WEIGHT = np.array([1, 10, 100, 1000], np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path = tmp_path_factory.mktemp("variant") / "model.so"
    path.write_bytes(build_cpu_variant(example(), native_options(), workers=1).code)
    return Library(path)


def test_describe_when_loaded_then_names_the_entries(library: Library) -> None:
    described = json.loads(library.functions.tessera_describe())
    # Readers of every minor compare the whole of it.
    assert described == {"abi": 1, "entries": ["main", "single"], "weights": 2}
    assert json.loads(library.functions.tessera_signature()) == {"inputs": [1, 1], "outputs": [3, 1]}


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_prepare_when_dims_are_allowed_then_gives_sizes_and_shapes(library: Library, n: int) -> None:
    status, workspace, shapes, _ = library.prepare(0, [n], 6)
    assert status == 0
    assert workspace == 64 * (n // 2) + 16 * n
    assert shapes == [n, 4, min(n, 10), n * n - n, (n - 5) // 3, (n - 5) % 3]


@pytest.mark.parametrize(("n", "guard", "left", "right"), [(0, 0, 1, 0), (13, 3, 6, 6)])
def test_guard_when_a_dim_breaks_it_then_prepare_and_run_refuse(
    library: Library, n: int, guard: int, left: int, right: int
) -> None:
    status, _, shapes, error = library.prepare(0, [n], 6)
    ran = library.run(0, [n])
    assert (status, ran.status) == (4, 4)
    assert shapes == [-99] * 6
    for record in (error, ran.error):
        assert (record.status, record.node, list(record.detail)) == (4, -1, [guard, left, right, 0])


def test_run_when_there_are_several_blocks_then_uses_the_arena_and_the_parallel_loop(library: Library) -> None:
    outcome = library.run(0, [12])
    assert outcome.status == 0
    np.testing.assert_array_equal(outcome.outputs[1][:48].reshape(12, 4), INPUT[:48].reshape(12, 4) + 2 * WEIGHT)
    assert not outcome.outputs[1][48:].any()
    assert outcome.loops == [12, 12]
    assert outcome.launches == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_run_when_there_is_one_block_then_calls_the_kernel_itself(library: Library) -> None:
    outcome = library.run(1, [])
    assert (outcome.status, outcome.loops) == (0, [])
    np.testing.assert_array_equal(outcome.outputs[0][:4], INPUT[4:8] + WEIGHT)


def test_run_when_a_kernel_fails_then_records_its_node(library: Library) -> None:
    outcome = library.run(0, [32])  # the second kernel's limit is then below zero
    assert (outcome.status, outcome.error.status, outcome.error.node) == (1, 1, 6)
    assert outcome.launches[-1] == (1, 1)


def test_run_when_cancelled_then_stops_before_the_first_launch(library: Library) -> None:
    outcome = library.run(0, [12], cancel=1)
    assert (outcome.status, outcome.error.status, outcome.error.node) == (6, 6, 5)
    assert outcome.launches == []
    assert library.run(0, [12], cancel=0).status == 0


def clear(field: str) -> Callable[[Call], None]:
    return lambda call: setattr(call, field, None)


@pytest.mark.parametrize("field", ["inputs", "weights", "outputs", "workspace", "services", "dims"])
def test_run_when_a_table_is_null_then_is_refused(library: Library, field: str) -> None:
    assert library.run(0, [12], change=clear(field)).status == 7


def test_run_when_the_entry_or_the_size_is_unknown_then_is_refused(library: Library) -> None:
    assert library.run(2, []).status == 7
    assert library.run(0, [12], change=lambda call: setattr(call, "size", 56)).status == 7
    assert library.functions.tessera_run(None) == 7
    assert library.prepare(2, [], 0)[0] == 7
    assert library.run(0, [0], change=clear("error")).status == 4


def test_equal_kernels_when_built_then_exist_once() -> None:
    built = build_cpu_variant(example(), native_options(), workers=1)
    assert [name for name, _ in built.symbols] == ["first", "second"]
    assert built.distinct_kernels == 1
    assert len(built.units) == 4


def test_bytes_when_kernels_are_renamed_and_reordered_then_stay() -> None:
    variant = example()
    kernels = tuple(replace(kernel, name=f"other_{kernel.name}") for kernel in reversed(variant.kernels))
    entries = tuple(
        replace(
            entry,
            nodes=tuple(replace(n, kernel=f"other_{n.kernel}") if isinstance(n, Launch) else n for n in entry.nodes),
        )
        for entry in variant.entries
    )
    renamed = Variant(entries, kernels, variant.weights)
    options = native_options()
    assert build_cpu_variant(variant, options, workers=1).code == build_cpu_variant(renamed, options, workers=1).code


def test_build_when_cached_then_compiles_nothing(tmp_path: Path) -> None:
    cache, options = ObjectCache(tmp_path), native_options()
    first = build_cpu_variant(example(), options, 1, cache)
    second = build_cpu_variant(example(), options, 1, cache)
    assert {unit.source for unit in first.units} == {"compiled"}
    assert {unit.source for unit in second.units} == {"cache"}
    assert first.code == second.code


def test_build_when_names_do_not_resolve_then_lists_all() -> None:
    launch = Launch("absent", symbol("M"), (), (), 0)
    with pytest.raises(CompileError, match=r"`absent` is launched by `main`.*dims M of `absent`"):
        build_cpu_variant(Variant((Entry("main", (), (launch,), 0, ()),), (), 0), native_options())


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"])
def test_backend_when_built_for_a_named_target_then_exports_the_interface(triple: str) -> None:
    backend: Backend = LlvmBackend()
    processor = "x86-64-v3" if triple.startswith("x86") else "neoverse-n1"
    options = TargetOptions(triple, processor, tools=backend.tools())
    built = backend.build(example(), options, Work(workers=1))
    assert all(name.encode() in built.code for name in HOST_EXPORTS)
    assert options.digest() != TargetOptions(triple, processor).digest()
    assert "ret" in backend.assembly(add_kernel("first"), options)


def test_run_when_called_from_several_threads_then_each_gets_its_own_answer(library: Library) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda n=n: statuses.append(library.run(0, [n]).status)) for n in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0, 0, 0]


FE_UPWARD = 0x800


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the rounding mode's number is x86's")
def test_run_when_the_caller_rounds_upwards_then_results_stay_and_so_does_the_mode(library: Library) -> None:
    mathematics = ctypes.CDLL(ctypes.util.find_library("m"))
    tiny = np.full(4000, 1e-12, np.float32)
    table = np.array([tiny.ctypes.data], np.uint64)
    assert mathematics.fesetround(FE_UPWARD) == 0
    try:
        outcome = library.run(1, [], change=lambda call: setattr(call, "inputs", table.ctypes.data))
        after = mathematics.fegetround()
    finally:
        mathematics.fesetround(0)
    assert after == FE_UPWARD
    np.testing.assert_array_equal(outcome.outputs[0][:4], WEIGHT)


def test_run_when_driven_by_its_own_pool_then_gives_the_serial_bits(library: Library) -> None:
    functions, system = library.functions, ctypes.CDLL(None)
    functions.tessera_pool_create.restype = ctypes.c_void_p
    names = ("pthread_create", "pthread_join", "sem_init", "sem_wait", "sem_post")
    storage: list[ctypes.Array[ctypes.c_char]] = []

    def allocate(_context: int, size: int, alignment: int) -> int:
        storage.append(ctypes.create_string_buffer(size + alignment))
        return -(-ctypes.addressof(storage[-1]) // alignment) * alignment

    services = Services(size=96, version=1)
    keep = ALLOCATE(allocate), RELEASE(lambda _context, _pointer: None)
    services.allocate, services.release = (ctypes.cast(function, ctypes.c_void_p) for function in keep)
    for place, name in enumerate(names):
        services.thread_and_semaphore[place] = ctypes.cast(getattr(system, name), ctypes.c_void_p).value
    pool = functions.tessera_pool_create(ctypes.byref(services), 2)
    assert pool
    services.context = pool
    services.parallel_for = ctypes.cast(functions.tessera_pool_parallel_for, PARALLEL_FOR)
    try:
        outcomes = [
            library.run(0, [12], change=lambda call: setattr(call, "services", ctypes.addressof(services)))
            for _ in range(20)
        ]
    finally:
        functions.tessera_pool_destroy(ctypes.c_void_p(pool), ctypes.byref(services))
    expected = library.run(0, [12]).outputs[1]
    assert [outcome.status for outcome in outcomes] == [0] * 20
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.outputs[1], expected)
