"""What this machine is and may use.

Takes: the operating system's files (`/proc`, cgroups), from a root that tests can replace.
Gives: the architecture, the CPU's features by Linux's and by LLVM's names, and the number of threads a process may run.
Invariant: a feature is reported only when both the CPU and the kernel support it (the kernel hides what it does not).
"""

# Importing pathlib takes 3.5 ms of the 40 that importing the runtime may take.
# ruff: noqa: PTH118, PTH123
import os
from typing import Final, NamedTuple

_ARCHITECTURES: Final = {"x86-64": "x86_64", "amd64": "x86_64", "arm64": "aarch64"}

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


class Machine(NamedTuple):
    """What a variant's target is compared with. `features` are in the form of `normal_feature`."""

    system: str
    arch: str
    features: frozenset[str]


def this_machine() -> Machine:
    """Ask the operating system."""
    uname = os.uname()
    return Machine(uname.sysname, normal_arch(uname.machine), cpu_features("/proc/cpuinfo"))


def normal_arch(name: str) -> str:
    """The name that Linux and the targets use for an architecture."""
    name = name.lower()
    return _ARCHITECTURES.get(name, name)


def normal_feature(name: str) -> str:
    """A feature's name without the punctuation in which LLVM and Linux differ: `sse4.2` and `sse4_2` are `sse42`."""
    return name.lower().replace(".", "").replace("_", "").replace("-", "")


def cpu_features(cpuinfo: str) -> frozenset[str]:
    """The features of the first CPU; none when the file cannot be read."""
    for line in _first_record(cpuinfo).splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            names = {normal_feature(name) for name in value.split()}
            return frozenset(names | {_LINUX_NAMES[name] for name in names & _LINUX_NAMES.keys()})
    return frozenset()


def _first_record(cpuinfo: str) -> str:
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


def default_threads(root: str = "/") -> int:
    """The CPUs this process may be scheduled on, or fewer when a cgroup grants less time than they have."""
    allowed = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _cgroup_cpus(root: str) -> float | None:
    """The smallest quota, in CPUs, of the process's cgroups and all groups above them."""
    return min((quota for path in cgroups(root, "cpu") if (quota := _quota(path)) is not None), default=None)


def cgroups(root: str, controller: str) -> list[str]:
    """The folders of the process's cgroups that may bound a resource, and of all groups above them."""
    found: list[str] = []
    for line in read_text(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        for folder in _mounts(root, controllers, controller):
            # Inside a container the path may be the host's, of which only the mount's own root can be seen.
            steps = [step for step in group.split("/") if step not in ("", "..")]
            found += [os.path.join(folder, *steps[:depth]) for depth in range(len(steps) + 1)]
    return found


def _mounts(root: str, controllers: str, wanted: str) -> tuple[str, ...]:
    mount = os.path.join(root, "sys/fs/cgroup")
    if not controllers:
        return (mount, os.path.join(mount, "unified"))
    return (os.path.join(mount, controllers),) if wanted in controllers.split(",") else ()


def _quota(group: str) -> float | None:
    """CPUs that one group grants: `cpu.max` of cgroup 2, or the two files of cgroup 1."""
    limit, _, period = read_text(os.path.join(group, "cpu.max")).strip().partition(" ")
    if not limit:
        limit, period = (
            read_text(os.path.join(group, "cpu.cfs_quota_us")).strip(),
            read_text(os.path.join(group, "cpu.cfs_period_us")).strip(),
        )
    if not (limit.isdigit() and period.isdigit() and int(limit) > 0 and int(period) > 0):
        return None
    return int(limit) / int(period)


def read_text(path: str) -> str:
    """The file; nothing where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
