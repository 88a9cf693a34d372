"""Sizes that a run reads from data: memory of its own, outputs that it allocates, and every way out of it.

Takes a small variant whose first output is as long as its first input says; gives statuses, records and what is still
allocated. Invariant: after a run that fails nothing is, after one that succeeds the outputs alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.objects import native_options
from tessera_build.backends.llvm.variant import build_cpu_variant
from tessera_build.ir.core.dims import symbol
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.types import F32
from tessera_build.ir.target import spec
from tessera_build.ir.target.host import Allocate, Buffer, Entry, Guard, Launch, Read, Release, Variant
from tessera_build.ir.target.kernel import Check
from tessera_build.ir.target.text import parse_variant, print_variant
from tessera_runtime.cpu.abi import Call, ErrorRecord, Plan, Services
from tests.backend_llvm_emit.tools import KernelBuilder

pytestmark = pytest.mark.numerics

N, COUNT, LIMIT = symbol("N"), symbol("count"), symbol("limit")
PARALLEL_FOR = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64),
    *[ctypes.c_int64] * 2,
)
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
X = np.arange(1, 101, dtype=np.float32)


def double() -> Function:
    """out[index] = x[index] + x[index]; status 1 where the index reaches the limit."""
    builder = KernelBuilder([F32, F32], dims=1)
    x, out = builder.buffers
    builder.append(Check(builder.op("lt", builder.index, builder.dims[0]), 1))
    value = builder.load(x, builder.index)
    builder.store(out, builder.index, builder.op("add", value, value))
    return replace(builder.finish("double"), attributes={"dims": ("limit",)})


def example() -> Variant:
    """counts[2] = count, limit; y[count] = 4 * x, through a slot; z[N] = 2 * x; guard 2 wants count != 13."""
    counts, x, slot = Buffer("input", 0), Buffer("input", 1), Buffer("dynamic", 0)
    nodes = (
        Guard(N, "le", 100, 0),
        Read("count", counts, 0, N, 4),
        Read("limit", counts, 1, -1, 5),
        Guard(COUNT, "ne", 13, 2),
        Allocate("dynamic", 0, COUNT * 4, 6),
        Launch("double", COUNT, (x, slot), (1000,), 6),
        Allocate("output", 0, COUNT * 4, 7),
        Launch("double", COUNT, (slot, Buffer("output", 0)), (LIMIT,), 7),
        Release(0),
        Launch("double", N, (x, Buffer("output", 1)), (1000,), 8),
        Allocate("output", 2, LIMIT * LIMIT * LIMIT, 9),
    )
    outputs = ((COUNT,), (N,), (2, LIMIT))
    return Variant((Entry("main", ("N",), nodes, 64, outputs, 1),), (double(),), 0)


@dataclass(slots=True)
class Heap:
    """A heap that counts, and that gives out `room` pieces at most."""

    room: int = 1000
    live: dict[int, ctypes.Array[ctypes.c_char]] = field(default_factory=dict[int, "ctypes.Array[ctypes.c_char]"])
    asked: list[int] = field(default_factory=list[int])

    def take(self, _: int, size: int, alignment: int) -> int:
        self.asked.append(size)
        if len(self.asked) > self.room:
            return 0
        block = ctypes.create_string_buffer(size + alignment)
        pointer = -(-ctypes.addressof(block) // alignment) * alignment
        self.live[pointer] = block
        return pointer

    def give(self, _: int, pointer: int) -> None:
        del self.live[pointer]


@dataclass(slots=True)
class Outcome:
    """What one run gave."""

    status: int
    error: ErrorRecord
    pointers: list[int | None]
    shapes: list[int]
    heap: Heap

    def floats(self, index: int, count: int) -> list[float]:
        return list((ctypes.c_float * count).from_address(self.pointers[index] or 0))


class Library:
    """The loaded variant."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))

    def run(
        self,
        counts: Sequence[int],
        heap: Heap | None = None,
        cancel: int = 0,
        changes: Mapping[str, object] = MappingProxyType({}),
    ) -> Outcome:
        heap = heap or Heap()
        flag, dims, z = ctypes.c_int32(cancel), np.array([20], np.int64), np.zeros(100, np.float32)
        keep = (
            PARALLEL_FOR(
                lambda _c, body, argument, count: next((s for i in range(count) if (s := body(argument, i))), 0)
            ),
            ALLOCATE(heap.take),
            RELEASE(heap.give),
        )
        loop, take, give = (ctypes.cast(function, ctypes.c_void_p) for function in keep)
        services = Services(96, 1, parallel_for=loop, allocate=take, release=give, cancel=ctypes.addressof(flag))
        inputs = (ctypes.c_void_p * 2)(np.array(counts, np.int64).ctypes.data, X.ctypes.data)
        given = np.array(counts, np.int64)
        inputs[0] = given.ctypes.data
        outputs = (ctypes.c_void_p * 3)(None, z.ctypes.data, None)
        shapes, work, error = np.full(4, -9, np.int64), np.full(8, -1, np.int64), ErrorRecord()
        call = Call(
            size=72, entry=0, dims=dims.ctypes.data, workspace=work.ctypes.data, output_shapes=shapes.ctypes.data
        )
        call.inputs, call.outputs = ctypes.addressof(inputs), ctypes.addressof(outputs)
        call.services, call.error = ctypes.addressof(services), ctypes.addressof(error)
        for name, value in changes.items():
            if name == "output":
                outputs[0] = value
            else:
                setattr(services if name == "allocate" else call, name, value)
        status = self.functions.tessera_run(ctypes.byref(call))
        return Outcome(status, error, list(outputs), shapes.tolist(), heap)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    spec.verify_variant(example())
    path = tmp_path_factory.mktemp("sizes") / "model.so"
    path.write_bytes(build_cpu_variant(example(), native_options(), workers=1).code)
    return Library(path)


def test_prepare_when_shapes_depend_on_data_then_says_so(library: Library) -> None:
    dims, shapes, error = np.array([20], np.int64), np.zeros(4, np.int64), ErrorRecord()
    plan = Plan(0, shapes.ctypes.data)
    assert (
        library.functions.tessera_prepare(0, ctypes.c_void_p(dims.ctypes.data), ctypes.byref(plan), ctypes.byref(error))
        == 0
    )
    assert (plan.workspace_bytes, shapes.tolist()) == (64, [-1, 20, 2, -1])


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_run_when_a_size_is_read_then_allocates_exactly_that(library: Library, count: int) -> None:
    found = library.run([count, 50])
    assert found.status == 0
    assert found.shapes == [count, 20, 2, 50]
    assert found.floats(0, count) == (4 * X[:count]).tolist()
    assert set(found.heap.live) == {found.pointers[0], found.pointers[2]}
    assert found.heap.asked == [max(1, 4 * count), max(1, 4 * count), 50**3]


@pytest.mark.parametrize(
    ("counts", "node", "detail"),
    [
        ([21, 50], 4, [21, 20]),
        ([-1, 50], 4, [-1, 20]),
        ([3, -7], 5, [-7, 1 << 47]),
        ([3, 1 << 48], 5, [1 << 48, 1 << 47]),
    ],
)
def test_run_when_a_size_is_beyond_its_bound_then_names_the_node(
    library: Library, counts: list[int], node: int, detail: list[int]
) -> None:
    found = library.run(counts)
    assert (found.status, found.error.status, found.error.node, list(found.error.detail)[:2]) == (3, 3, node, detail)
    assert found.heap.asked == []


@pytest.mark.parametrize("room", [0, 1, 2])
def test_run_when_memory_is_refused_then_gives_everything_back(library: Library, room: int) -> None:
    found = library.run([5, 50], Heap(room))
    assert (found.status, found.error.node) == (5, [6, 7, 9][room])
    assert found.heap.live == {}
    assert found.pointers[0] is found.pointers[2] is None


def test_run_when_a_size_overflows_then_is_out_of_memory_and_not_a_small_piece(library: Library) -> None:
    found = library.run([5, 1 << 46])
    assert (found.status, found.error.node) == (5, 9)
    assert len(found.heap.asked) == 2
    assert found.heap.live == {}


def test_run_when_a_kernel_fails_then_gives_everything_back(library: Library) -> None:
    found = library.run([5, 4])
    assert (found.status, found.error.node) == (1, 7)
    assert len(found.heap.asked) == 2
    assert found.heap.live == {}
    assert found.pointers[0] is None


def test_run_when_a_guard_over_sizes_fails_then_says_which(library: Library) -> None:
    found = library.run([13, 4])
    assert (found.status, list(found.error.detail)) == (4, [2, 13, 13, 0])
    assert found.heap.live == {}


def test_run_when_cancelled_then_gives_everything_back(library: Library) -> None:
    found = library.run([5, 50], cancel=1)
    assert (found.status, found.error.node) == (6, 6)
    assert len(found.heap.asked) == 1
    assert found.heap.live == {}


@pytest.mark.parametrize(
    "changes", [{"size": 64}, {"output_shapes": None}, {"allocate": None}, {"output": X.ctypes.data}, {"outputs": None}]
)
def test_run_when_the_call_does_not_fit_then_is_refused_before_anything(
    library: Library, changes: dict[str, object]
) -> None:
    found = library.run([5, 50], changes=changes)
    assert (found.status, found.heap.asked) == (7, [])


def test_variant_when_printed_then_parses_equal() -> None:
    text = print_variant(example())
    again = parse_variant(text)
    assert print_variant(again) == text
    assert again.entries[0].dynamic_outputs == (0, 2)


def without(kind: type[Node], *more: Node) -> Variant:
    """The example without its nodes of one class, and with others in front."""
    variant = example()
    (entry,) = variant.entries
    kept = tuple(node for node in entry.nodes if not isinstance(node, kind))
    return replace(variant, entries=(replace(entry, nodes=(*more, *kept)),))


COUNTS = Buffer("input", 0)
MISUSES: dict[str, tuple[str, Variant]] = {
    "a size that is never read": ("host_dims", without(Read)),
    "a size that is read twice": ("fresh_size", without(Guard, Read("count", COUNTS, 0, N, 0))),
    "a bound over a size that is read later": ("host_dims", without(Guard, Read("other", COUNTS, 0, LIMIT, 0))),
    "a slot that does not exist": ("slots", without(Guard, Allocate("dynamic", 1, 4, 0))),
    "an output that the caller gives": ("slots", without(Guard, Allocate("output", 1, 4, 0))),
    "a release of nothing": ("slots", without(Guard, Release(7))),
    "an arena of unknown size": (
        "host_dims",
        replace(example(), entries=(replace(example().entries[0], arena_bytes=COUNT * 4),)),
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_host_program_when_sizes_are_misused_then_the_rule_refuses(name: str) -> None:
    rule, variant = MISUSES[name]
    with pytest.raises(spec.SpecError) as caught:
        spec.verify_variant(variant)
    assert {violation.rule for violation in caught.value.violations} == {rule}


def test_host_program_when_a_size_has_no_value_then_is_not_compiled() -> None:
    with pytest.raises(CompileError, match="are not dims"):
        build_cpu_variant(without(Read), native_options(), workers=1)
