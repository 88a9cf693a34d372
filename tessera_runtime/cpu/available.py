"""How much memory this process can still take without being ended for it.

Takes: the operating system's files (`/proc`, cgroups), from a root that tests can replace.
Gives: bytes, and a check that large requests pass before they are made.
Invariant: nothing is refused that the system would grant: where it does not tell, any size passes.
"""

# Importing pathlib takes 3.5 ms of the 40 that importing the runtime may take.
# ruff: noqa: PTH118
import os
from typing import Final

from tessera_runtime.cpu.machine import cgroups, read_text

# Asking takes a fifth of a millisecond; smaller requests are not worth it, and what they miss is soon found by others.
_LARGE: Final = 1 << 30


def shortage(size: int, root: str = "/") -> int | None:
    """How many bytes there are, where these are fewer than a large request asks for.

    Linux promises memory that it does not have, and ends a process that uses it.
    """
    if size < _LARGE:
        return None
    found = available_bytes(root)
    return found if found is not None and found < size else None


def available_bytes(root: str = "/") -> int | None:
    """What the machine and the process's cgroups have left, swap and droppable pages included; None: unknown."""
    machine = _fields(os.path.join(root, "proc/meminfo"))
    known = [left for path in cgroups(root, "memory") if (left := _left(path)) is not None]
    if "MemAvailable" in machine:
        known.append((machine["MemAvailable"] + machine.get("SwapFree", 0)) << 10)
    return min(known, default=None)


def _left(group: str) -> int | None:
    """What one group may still take: the files of cgroup 2, or those of cgroup 1."""
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        texts = [read_text(os.path.join(group, name)).strip() for name in (limit, usage)]
        if all(text.isdigit() for text in texts):
            cached = _fields(os.path.join(group, "memory.stat"))
            droppable = sum(cached.get(name, 0) for name in ("inactive_file", "active_file"))
            return max(0, int(texts[0]) - max(0, int(texts[1]) - droppable))
    return None


def _fields(path: str) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.replace(":", " ").split() for line in read_text(path).splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
