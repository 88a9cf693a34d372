"""What this machine is and may use.

Takes: the operating system's files (`/proc`, cgroups), from a root that tests can replace.
Gives: the architecture, the CPU's features by the names of targets, and the number of threads a process may run.
Invariant: a feature is reported only when both the CPU and the kernel support it (the kernel hides what it does not).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ARCHITECTURES: Final = {"x86_64": "x86-64", "amd64": "x86-64", "arm64": "aarch64"}

# Linux's names that differ from LLVM's by more than punctuation, which `normal_feature` drops.
_LINUX_NAMES: Final = {
    "pni": "sse3",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "pclmulqdq": "pclmul",
    "lahflm": "sahf",
    "rdrand": "rdrnd",
    "fpu": "x87",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
    "atomics": "lse",
    "crc32": "crc",
}
_MAX_RECORD_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Machine:
    """What a variant's target is compared with. `features` are in the form of `normal_feature`."""

    system: str
    arch: str
    features: frozenset[str]


def this_machine() -> Machine:
    """Ask the operating system."""
    uname = os.uname()
    return Machine(uname.sysname, normal_arch(uname.machine), cpu_features(Path("/proc/cpuinfo")))


def normal_arch(name: str) -> str:
    """The name that targets use for an architecture."""
    name = name.lower()
    return _ARCHITECTURES.get(name, name)


def normal_feature(name: str) -> str:
    """A feature's name without the punctuation in which LLVM and Linux differ: `sse4.2` and `sse4_2` are `sse42`."""
    return name.lower().replace(".", "").replace("_", "").replace("-", "")


def cpu_features(cpuinfo: Path) -> frozenset[str]:
    """The features of the first CPU; none when the file cannot be read."""
    for line in _first_record(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            names = {normal_feature(name) for name in value.split()}
            return frozenset(names | {_LINUX_NAMES[name] for name in names & _LINUX_NAMES.keys()})
    return frozenset()


def _first_record(cpuinfo: Path) -> str:
    """The text up to the first empty line: the kernel takes milliseconds to print hundreds of CPUs."""
    try:
        descriptor = os.open(cpuinfo, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    data = b""
    try:
        while b"\n\n" not in data and len(data) < _MAX_RECORD_BYTES:
            piece = os.read(descriptor, 4096)
            if not piece:
                break
            data += piece
    finally:
        os.close(descriptor)
    return data.partition(b"\n\n")[0].decode("utf-8", "replace")


def default_threads(root: Path = Path("/")) -> int:
    """The CPUs this process may be scheduled on, or fewer when a cgroup grants less time than they have."""
    allowed = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _cgroup_cpus(root: Path) -> float | None:
    """The smallest quota, in CPUs, of the process's cgroups and all groups above them."""
    quotas: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        for folder in _mounts(root, controllers):
            # Inside a container the path may be the host's, of which only the mount's own root can be seen.
            path = (folder / group.lstrip("/")).resolve()
            quotas += [quota for step in (path, *path.parents) if (quota := _quota(step)) is not None]
            quotas += [quota for quota in (_quota(folder),) if quota is not None]
    return min(quotas, default=None)


def _mounts(root: Path, controllers: str) -> tuple[Path, ...]:
    mount = root / "sys/fs/cgroup"
    if not controllers:
        return (mount, mount / "unified")
    return (mount / controllers,) if "cpu" in controllers.split(",") else ()


def _quota(group: Path) -> float | None:
    """CPUs that one group grants: `cpu.max` of cgroup 2, or the two files of cgroup 1."""
    limit, _, period = _read(group / "cpu.max").strip().partition(" ")
    if not limit:
        limit, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()
    if not (limit.isdigit() and period.isdigit() and int(limit) > 0 and int(period) > 0):
        return None
    return int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
