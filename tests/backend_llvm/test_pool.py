"""The thread pool, driven for real through the C library's threads and semaphores."""

import ctypes
import platform
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tessera_build.backends.llvm.errors import CompileError
from tessera_build.backends.llvm.objects import compile_ir
from tessera_build.backends.llvm.pool import MAXIMUM_THREADS, POOL_EXPORTS, floating_point_ir, pool_ir
from tests.backend_llvm.harness import AARCH64, X86_64, Host, ThreadCreate, address, build, load

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs x86-64 code")

BODIES = """
declare i32 @tessera_pool_parallel_for(ptr, ptr, ptr, i64)
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)

; counts: i64 counts[index] += 1, without atomics: an index that ran twice at once would lose one
define i32 @count(ptr %counts, i64 %index) {
  %at = getelementptr i64, ptr %counts, i64 %index
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at
  ret i32 0
}

; a table of i32 statuses by index; [-1] counts calls
define i32 @status(ptr %table, i64 %index) {
  %callsat = getelementptr i32, ptr %table, i64 -1
  %old = atomicrmw add ptr %callsat, i32 1 monotonic
  %at = getelementptr i32, ptr %table, i64 %index
  %status = load i32, ptr %at
  ret i32 %status
}

; the control word that each index sees
define i32 @word(ptr %words, i64 %index) {
  %at = getelementptr i32, ptr %words, i64 %index
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  br label %loop
loop:
  %round = phi i64 [ 0, %0 ], [ %next, %loop ]
  call void asm sideeffect "pause", ""()
  %next = add i64 %round, 1
  %more = icmp ult i64 %next, 100
  br i1 %more, label %loop, label %end
end:
  ret i32 0
}

; argument: { pool, counts }; each of the outer indices runs 8 inner ones
define i32 @outer(ptr %argument, i64 %index) {
  %pool = load ptr, ptr %argument
  %countsat = getelementptr i8, ptr %argument, i64 8
  %counts = load ptr, ptr %countsat
  %first = mul i64 %index, 8
  %row = getelementptr i64, ptr %counts, i64 %first
  %status = call i32 @tessera_pool_parallel_for(ptr %pool, ptr @count, ptr %row, i64 8)
  ret i32 %status
}

; many launches of `count` without returning to Python
define i32 @many(ptr %pool, ptr %counts, i64 %indices, i64 %launches) {
entry:
  br label %loop
loop:
  %number = phi i64 [ 0, %entry ], [ %next, %loop ]
  %status = call i32 @tessera_pool_parallel_for(ptr %pool, ptr @count, ptr %counts, i64 %indices)
  %next = add i64 %number, 1
  %good = icmp eq i32 %status, 0
  %left = icmp ult i64 %next, %launches
  %more = and i1 %good, %left
  br i1 %more, label %loop, label %end
end:
  ret i32 %status
}

define i32 @set_word(i32 %value) {
  %at = alloca i32
  store i32 %value, ptr %at
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret i32 0
}

define i32 @guarded(ptr %seen) {
  %old = call i64 @tessera.floating_point.enter()
  call void @llvm.x86.sse.stmxcsr(ptr %seen)
  call void @tessera.floating_point.leave(i64 %old)
  %after = getelementptr i32, ptr %seen, i64 1
  call void @llvm.x86.sse.stmxcsr(ptr %after)
  ret i32 0
}
"""
BODY_NAMES = ("count", "status", "word", "outer", "many", "set_word", "guarded")


def bodies_ir() -> str:
    """The bodies, with the snippet's own declaration of ldmxcsr and stmxcsr in place of theirs."""
    lines = [line for line in BODIES.splitlines() if not line.startswith("declare void @llvm.x86")]
    return floating_point_ir("x86_64") + "\n".join(lines)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    code = build(pool_ir("x86_64"), bodies_ir(), exports=(*POOL_EXPORTS, *BODY_NAMES))
    loaded = load(code, tmp_path_factory.mktemp("pool"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    loaded.tessera_pool_create.restype = pointer
    loaded.tessera_pool_create.argtypes = [pointer, ctypes.c_int32]
    loaded.tessera_pool_parallel_for.argtypes = [pointer, pointer, pointer, number]
    loaded.tessera_pool_destroy.argtypes = [pointer, pointer]
    loaded.tessera_pool_destroy.restype = None
    loaded.many.argtypes = [pointer, pointer, number, number]
    return loaded


@pytest.fixture(params=[True, False], ids=["whole", "earlier"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = Host(bool(request.param))
    yield made
    assert made.live == set()


@pytest.fixture
def make_pool(library: ctypes.CDLL, host: Host) -> Iterator[Callable[[int], int]]:
    pools: list[int] = []

    def make(threads: int) -> int:
        pools.append(library.tessera_pool_create(ctypes.byref(host.table), threads))
        return pools[-1]

    yield make
    for pool in pools:
        library.tessera_pool_destroy(pool, ctypes.byref(host.table))


def thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def assert_threads_end(most: int) -> None:
    """The kernel lists a thread for a moment after it was joined."""
    deadline = time.monotonic() + 5
    while thread_count() > most and time.monotonic() < deadline:
        time.sleep(0.001)
    assert thread_count() <= most


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_parallel_for_when_launched_thousands_of_times_then_each_index_runs_once_a_launch(
    library: ctypes.CDLL, make_pool: Callable[[int], int], threads: int
) -> None:
    pool = make_pool(threads)
    for indices, launches in ((2, 5000), (3, 3000), (64, 1000)):
        counts = (ctypes.c_int64 * indices)()
        assert library.many(pool, counts, indices, launches) == 0
        assert list(counts) == [launches] * indices


_CPU = ctypes.CFUNCTYPE(ctypes.c_int32)
_AFFINITY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)


@pytest.mark.parametrize(
    ("cpu", "allowed", "status", "expected"),
    [
        (3, (1, 3), 0, {(1,)}),
        (700, (3, 64, 700), 0, {(3, 64)}),
        (5, (5,), 0, set()),  # there is no other
        (3, (1, 3), -1, set()),
        (-1, (1, 3), 0, set()),
        (1024, (1, 3), 0, set()),
    ],
)
def test_workers_when_woken_then_are_moved_off_the_processor_of_their_caller(
    library: ctypes.CDLL, cpu: int, allowed: tuple[int, ...], status: int, expected: set[tuple[int, ...]]
) -> None:
    host, moved = Host(), list[tuple[int, ...]]()

    def get(_thread: int, size: int, mask: int) -> int:
        ctypes.memmove(mask, sum(1 << n for n in allowed).to_bytes(size, "little"), size)
        return status

    def set_(_thread: int, size: int, mask: int) -> int:
        bits = int.from_bytes(ctypes.string_at(mask, size), "little")
        moved.append(tuple(n for n in range(size * 8) if bits >> n & 1))
        return 0

    functions = _CPU(lambda: cpu), _AFFINITY(get), _AFFINITY(set_)
    host.table.current_cpu, host.table.get_affinity, host.table.set_affinity = (address(f) for f in functions)
    pool, counts = library.tessera_pool_create(ctypes.byref(host.table), 3), (ctypes.c_int64 * 16)()
    for _ in range(3):
        time.sleep(0.01)  # longer than the workers spin
        assert library.tessera_pool_parallel_for(pool, address(library.count), counts, 16) == 0
    library.tessera_pool_destroy(pool, ctypes.byref(host.table))
    assert list(counts) == [3] * 16
    assert set(moved) == expected


def test_parallel_for_when_workers_are_parked_then_each_launch_still_completes(
    library: ctypes.CDLL, make_pool: Callable[[int], int]
) -> None:
    pool = make_pool(4)
    counts = (ctypes.c_int64 * 16)()
    for _ in range(60):
        time.sleep(0.0007)  # longer than the workers spin
        assert library.tessera_pool_parallel_for(pool, address(library.count), counts, 16) == 0
    assert list(counts) == [60] * 16


@pytest.mark.parametrize("count", [0, -5])
def test_parallel_for_when_there_is_nothing_to_do_then_nothing_runs(
    library: ctypes.CDLL, make_pool: Callable[[int], int], count: int
) -> None:
    assert library.tessera_pool_parallel_for(make_pool(2), None, None, count) == 0


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_parallel_for_when_several_indices_fail_then_the_lowest_wins_and_the_rest_is_not_begun(
    library: ctypes.CDLL, make_pool: Callable[[int], int], threads: int
) -> None:
    pool = make_pool(threads)
    total = 100_000
    memory = (ctypes.c_int32 * (total + 1))()
    table = ctypes.addressof(memory) + 4
    memory[1 + 20], memory[1 + 21], memory[1 + 23] = 7, 1, 5
    for _ in range(300):
        memory[0] = 0
        assert library.tessera_pool_parallel_for(pool, address(library.status), table, total) == 7
        assert 21 <= memory[0] < total


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_parallel_for_when_every_range_fails_then_the_lowest_index_wins_wherever_it_lies(
    library: ctypes.CDLL, make_pool: Callable[[int], int], threads: int
) -> None:
    pool = make_pool(threads)
    total = 12 * 50
    for lowest in (0, 1, 149, 150, 199, 200, 299, 300, 450, 599):
        memory = (ctypes.c_int32 * (total + 1))()
        table = ctypes.addressof(memory) + 4
        for index in {lowest, *(at for at in (150, 200, 300, 400, 450, 599) if at > lowest)}:
            memory[1 + index] = 1000 + index
        for _ in range(20):
            assert library.tessera_pool_parallel_for(pool, address(library.status), table, total) == 1000 + lowest


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_parallel_for_when_indices_do_not_divide_evenly_then_each_runs_once(
    library: ctypes.CDLL, make_pool: Callable[[int], int], threads: int
) -> None:
    pool = make_pool(threads)
    for count in (2, 3, 4, 5, 7, 8, 9, 31):
        counts = (ctypes.c_int64 * (count + 1))()
        for _ in range(20):
            assert library.tessera_pool_parallel_for(pool, address(library.count), counts, count) == 0
        assert list(counts) == [20] * count + [0]


def test_parallel_for_when_nested_then_the_inner_one_runs_on_its_caller(
    library: ctypes.CDLL, make_pool: Callable[[int], int]
) -> None:
    pool = make_pool(4)
    counts = (ctypes.c_int64 * 128)()
    argument = (ctypes.c_void_p * 2)(pool, ctypes.addressof(counts))
    for _ in range(500):
        assert library.tessera_pool_parallel_for(pool, address(library.outer), argument, 16) == 0
    assert list(counts) == [500] * 128


@pytest.mark.parametrize("threads", [2, 4])
def test_parallel_for_when_called_from_several_threads_at_once_then_all_complete(
    library: ctypes.CDLL, make_pool: Callable[[int], int], threads: int
) -> None:
    pool = make_pool(threads)
    counters = [(ctypes.c_int64 * 8)() for _ in range(4)]
    callers = [
        threading.Thread(target=library.many, args=(pool, counter, ctypes.c_int64(8), ctypes.c_int64(3000)))
        for counter in counters
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [list(counter) for counter in counters] == [[3000] * 8] * 4


def test_pool_when_created_and_destroyed_many_times_then_threads_and_memory_are_gone(
    library: ctypes.CDLL, host: Host
) -> None:
    before = thread_count()
    counts = (ctypes.c_int64 * 8)()
    for number in range(150):
        pool = library.tessera_pool_create(ctypes.byref(host.table), 1 + number % 4)
        assert library.many(pool, counts, 8, number % 3 + 1) == 0
        if number % 10 == 0:
            time.sleep(0.0005)  # some are destroyed while parked
        library.tessera_pool_destroy(pool, ctypes.byref(host.table))
    assert_threads_end(before)
    assert list(counts) == [300] * 8


def test_pool_when_destroyed_as_null_then_nothing_happens(library: ctypes.CDLL, host: Host) -> None:
    library.tessera_pool_destroy(None, ctypes.byref(host.table))


@pytest.mark.parametrize("threads", [0, -1, MAXIMUM_THREADS + 1])
def test_pool_when_the_number_of_threads_is_absurd_then_not_created(
    library: ctypes.CDLL, host: Host, threads: int
) -> None:
    assert library.tessera_pool_create(ctypes.byref(host.table), threads) is None


def test_pool_when_the_table_is_incomplete_then_not_created(library: ctypes.CDLL, host: Host) -> None:
    allocate = host.table.allocate
    host.table.allocate = None
    assert library.tessera_pool_create(ctypes.byref(host.table), 2) is None
    host.table.allocate, host.table.size = allocate, 88
    assert library.tessera_pool_create(ctypes.byref(host.table), 2) is None


def test_pool_when_a_thread_cannot_be_started_then_nothing_is_left_behind(library: ctypes.CDLL, host: Host) -> None:
    started: list[int] = []
    begin = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(address(host.library.pthread_create))

    def create(handle: int, attributes: int | None, entry: int, argument: int) -> int:
        if len(started) == 2:
            return 11  # EAGAIN
        started.append(argument)
        return begin(handle, attributes, entry, argument)

    callback = ThreadCreate(create)
    host.table.thread_create = address(callback)
    before = thread_count()
    assert library.tessera_pool_create(ctypes.byref(host.table), 4) is None
    assert len(started) == 2
    assert_threads_end(before)  # and the fixture checks that the memory was released


def test_pool_when_the_creator_flushes_denormals_then_workers_do_not(
    library: ctypes.CDLL, make_pool: Callable[[int], int]
) -> None:
    flushing = 0x9FC0
    words = (ctypes.c_int32 * 400)()
    library.set_word(flushing)
    try:
        pool = make_pool(2)  # a new thread inherits its creator's control word
        seen: set[int] = set()
        for _ in range(200):
            library.tessera_pool_parallel_for(pool, address(library.word), words, 400)
            seen |= {word & 0xFFC0 for word in words}
            if len(seen) == 2:
                break
    finally:
        library.set_word(0x1F80)
    assert seen == {flushing & 0xFFC0, 0x1F80}  # the caller keeps its own word; the worker has the default


def test_floating_point_when_entered_then_default_and_when_left_then_as_before(library: ctypes.CDLL) -> None:
    seen = (ctypes.c_int32 * 2)()
    library.set_word(0x9FC0)
    library.guarded(seen)
    library.set_word(0x1F80)
    assert [word & 0xFFC0 for word in seen] == [0x1F80, 0x9FC0]


def test_pool_when_compiled_for_aarch64_then_it_needs_no_library() -> None:
    symbols = compile_ir(pool_ir("aarch64"), AARCH64)
    assert symbols[18] == 183
    assert b"__aarch64" not in symbols  # no out-of-line atomics


def test_pool_when_compiled_for_the_oldest_processor_then_it_compiles() -> None:
    assert compile_ir(pool_ir("x86_64"), X86_64)[:4] == b"\x7fELF"


def test_pool_when_the_architecture_is_unknown_then_refused() -> None:
    with pytest.raises(CompileError, match="no thread pool"):
        pool_ir("riscv64")
