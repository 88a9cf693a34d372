"""What the machine under us is, for the target `native`.

Takes: the root of a file system that has Linux's /proc and /sys (a test passes its own).
Gives: processor flags and cache sizes as a frozen `Machine`.
Invariant: nothing is guessed: a cache that the kernel does not report is absent, a machine without flags an error.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

from tessera_build.config.errors import HostError

_CACHES = Path("sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True, slots=True)
class Machine:
    """`flags` as Linux names them; `cache_bytes` maps the levels that hold data (1, 2, 3) to their size."""

    arch: str
    flags: frozenset[str]
    cache_bytes: tuple[tuple[int, int], ...]


def read_machine(root: Path = Path("/"), arch: str | None = None) -> Machine:
    """The machine whose kernel's files lie below `root`; `HostError` where it says nothing of its processor."""
    return Machine(arch or platform.machine(), _flags(root / "proc/cpuinfo"), _caches(root / _CACHES))


def _flags(path: Path) -> frozenset[str]:
    """The flags that every processor has: a mixed machine is as able as its least able core."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise _unknown(path) from error
    cores = [frozenset(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))]
    if not cores:
        raise _unknown(path)
    return cores[0].intersection(*cores)


def _unknown(path: Path) -> HostError:
    """The error for a system that does not describe its processor."""
    return HostError(
        "MACHINE_UNKNOWN",
        "this system does not tell what its processor can do",
        where=str(path),
        expected="Linux's list of processor flags",
        hint="name a target instead of `native`; `tessera targets` lists them",
    )


def _caches(folder: Path) -> tuple[tuple[int, int], ...]:
    """(level, bytes) of each cache that holds data, the nearest first."""
    found: dict[int, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind in ("Data", "Unified") and size.endswith("K") and size[:-1].isdigit():
            found[int(level)] = int(size[:-1]) * 1024
    return tuple(sorted(found.items()))
