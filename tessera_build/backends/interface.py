"""What a back end is: Target IR in, the machine code of one variant out.

Takes a `Variant`, `TargetOptions` and the means of work (`Work`); gives a `BuiltVariant`. Implemented by the rooms
beside this file, which don't know each other. Invariant: the code is a function of the variant and the options, which
name every tool version that it depends on; workers, caches and progress never change a byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from tessera_build.ir.core.node import Function
from tessera_build.ir.target.host import Variant

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, name of the unit just done)."""


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """One machine and the tools that make its code. `features` carry their signs: `("+avx512f",)`.

    `tools` are (name, version) pairs: two versions of a compiler are two targets as far as bytes go.
    """

    triple: str
    processor: str = "generic"
    features: tuple[str, ...] = ()
    optimization: int = 2
    tools: tuple[tuple[str, str], ...] = ()

    def digest(self) -> str:
        """SHA-256 of everything here, in hexadecimal: a part of every cache key."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Work:
    """How to do the work. `workers` None: as many as this process has processors. `cache` None: no cache."""

    workers: int | None = None
    cache: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One compiled unit: `source` is "compiled", "cache" or "duplicate" of an earlier unit."""

    name: str
    source: str
    seconds: float
    object_bytes: int


@dataclass(frozen=True, slots=True)
class BuiltVariant:
    """The machine code of a variant. `symbols` are (kernel, the function that it became) pairs, for traces."""

    code: bytes
    symbols: tuple[tuple[str, str], ...]
    units: tuple[UnitRecord, ...]

    @property
    def distinct_kernels(self) -> int:
        """Kernels that remain after equal ones were merged."""
        return len({symbol for _, symbol in self.symbols})


class Backend(Protocol):
    """Code generation for one family of targets."""

    @property
    def name(self) -> str:
        """The room's name: `llvm`, `spirv`, `cuda`."""
        ...

    def tools(self) -> tuple[tuple[str, str], ...]:
        """The versions that belong into `TargetOptions.tools`."""
        ...

    def build(self, variant: Variant, options: TargetOptions, work: Work) -> BuiltVariant:
        """The code of a variant; raises a `TesseraError` that lists every unit that could not be compiled."""
        ...

    def assembly(self, kernel: Function, options: TargetOptions) -> str:
        """What one kernel becomes, as text for people."""
        ...
