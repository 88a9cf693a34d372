"""What a build tells its caller: on the way (`Event`) and in the end (`BuildResult`).

Takes nothing; gives frozen records. Invariant: everything in them was measured or made by the build itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundle_format.digest import Digest
from tessera_build.driver.footprint import Workspace
from tessera_build.verify.proof import Proof


@dataclass(frozen=True, slots=True)
class Event:
    """A stage goes on: `done` of `total` units; `detail` names the unit just done. `total` 0: not known yet."""

    stage: str
    done: int = 0
    total: int = 0
    detail: str = ""


Progress = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long one stage took."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class KernelCount:
    """Where the machine code came from: units that were compiled now, found in the cache, or equal to another."""

    compiled: int = 0
    cached: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished bundle. `verification` has one proof per target, none when the build was told not to verify;
    `workspaces` has every entry on every target."""

    path: Path
    digest: Digest
    targets: tuple[str, ...]
    verification: tuple[Proof, ...]
    warnings: tuple[str, ...]
    timings: tuple[StageTime, ...]
    kernels: KernelCount
    bytes: int
    workspaces: tuple[Workspace, ...] = ()

    @property
    def seconds(self) -> float:
        """The whole build."""
        return sum(timing.seconds for timing in self.timings)
