"""Thread pools, which belong to the process and not to a model.

Takes: the code of the first object that is loaded, and a number of threads.
Gives: `Pool`, whose services table every call refers to.
Invariant: there is at most one pool for each number of threads; after `fork` the child makes its own on first use, for
threads do not survive a fork.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, cast, final

from bundle_format.schema import ABI_VERSION
from tessera_runtime.cpu.abi import Services
from tessera_runtime.cpu.image import CodeImage
from tessera_runtime.cpu.memory import ALLOCATE, RELEASE
from tessera_runtime.errors import RunError

_C: Final = ctypes.CDLL(None)
_PROFILE: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32)

# A kernel may keep 640 KiB on its stack (tessera_model.h): musl gives threads 128 KiB, a small `ulimit -s` no more.
_STACK_BYTES: Final = 2 << 20
_ATTRIBUTES_BYTES: Final = 128  # pthread_attr_t has 56 on x86-64 and 64 on aarch64

# Called with the number of a launch and its phase.
Look = Callable[[int, int], None]


def _thread_attributes() -> ctypes.Array[ctypes.c_char]:
    """What threads of the pool are made with."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    _C.pthread_attr_init(attributes)
    _C.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
    return attributes


_ATTRIBUTES: Final = _thread_attributes()
_Create: Final = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)


def _create_thread(handle: int | None, _: int | None, entry: int | None, argument: int | None) -> int:
    """tessera_services.thread_create."""
    words = (ctypes.c_void_p(handle), _ATTRIBUTES, ctypes.c_void_p(entry), ctypes.c_void_p(argument))
    return int(_C.pthread_create(*words))


_CREATE: Final = _Create(_create_thread)


@final
class Pool:
    """A pool of the process. `address` is that of the services table for calls, 0 when the pool must be made anew."""

    def __init__(self, image: CodeImage, threads: int) -> None:
        image.pin()
        self.threads: Final = threads
        self._image = image
        self._lock = threading.Lock()
        self._services = Services()
        self._hooks: list[object] = []
        self.address = 0

    def services(self) -> int:
        """The address of the services table; makes the pool when it is not there."""
        with self._lock:
            if not self.address:
                self._services = self._create()
                self.address = ctypes.addressof(self._services)
            return self.address

    @contextmanager
    def profiled(self, look: Look) -> Generator[None]:
        """While the block runs, every launch on this pool, of whatever model, calls `look(launch, phase)`.

        Phase 0 begins a launch, 1 ends it; launches are numbered per entry. `look` must not raise: nobody would know.
        """
        self.services()

        def called(_context: int | None, launch: int, phase: int) -> None:
            look(launch, phase)

        hook = _PROFILE(called)
        self._hooks.append(hook)  # a call that began in the block may still hold the address
        self._services.profile = ctypes.cast(hook, ctypes.c_void_p)
        try:
            yield
        finally:
            self._services.profile = None

    def forget(self) -> None:
        """Called in a child after `fork`: the pool's threads, and whoever held the lock, are in the parent."""
        self._lock = threading.Lock()
        self.address = 0

    def _create(self) -> Services:
        services = Services(
            size=ctypes.sizeof(Services),
            version=ABI_VERSION,
            allocate=ctypes.cast(ALLOCATE, ctypes.c_void_p),
            release=ctypes.cast(RELEASE, ctypes.c_void_p),
            thread_create=ctypes.cast(_CREATE, ctypes.c_void_p),
            thread_join=_symbol("pthread_join"),
            semaphore_init=_symbol("sem_init"),
            semaphore_wait=_symbol("sem_wait"),
            semaphore_post=_symbol("sem_post"),
            thread_yield=_symbol("sched_yield"),
            current_cpu=_symbol("sched_getcpu"),
            get_affinity=_symbol("sched_getaffinity"),
            set_affinity=_symbol("pthread_setaffinity_np"),
        )
        pool = cast("int | None", self._image.pool_create(ctypes.addressof(services), self.threads))
        if not pool:
            raise RunError(
                "POOL_FAILED",
                "the system refuses to start the threads of the pool",
                found=f"{self.threads} threads",
                hint="load with fewer threads, or raise the limit on processes",
            )
        services.context = pool
        services.parallel_for = self._image.address("tessera_pool_parallel_for")
        return services


@final
class PoolRegistry:
    """The pools of one process, by their number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[int, Pool] = {}
        os.register_at_fork(after_in_child=self._forget)

    def get(self, image: CodeImage, threads: int) -> Pool:
        """The pool with this number of threads; the first that asks lends its code."""
        with self._lock:
            pool = self._pools.get(threads)
            if pool is None:
                pool = self._pools[threads] = Pool(image, threads)
        pool.services()
        return pool

    def _forget(self) -> None:
        self._lock = threading.Lock()
        for pool in self._pools.values():
            pool.forget()


def _symbol(name: str) -> int:
    """The address of a function of the C library."""
    return cast(int, ctypes.cast(_C[name], ctypes.c_void_p).value)


# The one mutable global of the runtime: the threads of a process are a resource of the process.
PROCESS_POOLS: Final = PoolRegistry()
