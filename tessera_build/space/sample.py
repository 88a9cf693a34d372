"""Decision vectors at random, and all of them: what a search starts from, and what the derivation enumerates.

Takes a rule with its sketch, a workload and a machine; gives legal vectors as integer arrays. Invariant: the same
arguments and seed give the same array on every machine (numpy's PCG64 and integers only), no vector is illegal, and
none is there twice where all of them were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.cost import Floats, cycles
from tessera_build.space.features import Features
from tessera_build.space.rules.rule import Flags, Rule
from tessera_build.space.sketch import Sketch, Vectors
from tessera_build.space.workload import Workload

_ATTEMPTS = 64  # batches of random vectors; at most one in a few hundred is legal anywhere


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """One sketch of one task: everything that candidates are judged by."""

    work: Workload
    machine: CpuMachine
    rule: Rule
    sketch: Sketch

    def legal(self, vectors: Vectors) -> Flags:
        """Which vectors fit the machine."""
        return self.rule.legal(self.work, self.machine, self.sketch.values(vectors))

    def features(self, vectors: Vectors) -> Features:
        """Features of a batch."""
        return self.rule.features(self.work, self.machine, self.sketch, self.sketch.values(vectors))

    def score(self, vectors: Vectors) -> Floats:
        """Estimated cycles of a batch."""
        return cycles(self.features(vectors), self.machine)

    def start(self) -> Vectors:
        """A legal vector, as one row."""
        return self.sketch.vector(self.rule.start(self.work, self.machine)).reshape(1, -1)


def sample(space: Space, count: int, seed: int) -> Vectors:
    """`count` legal vectors, uniform over the choices of every decision; fewer where hardly any is legal."""
    generator = np.random.Generator(np.random.PCG64(seed))
    widths = np.asarray([len(d.choices) for d in space.sketch.decisions], np.int64)
    found = np.empty((0, len(widths)), np.int64)
    for _ in range(_ATTEMPTS):
        drawn = generator.integers(0, widths, (max(256, count), len(widths)))
        found = np.concatenate([found, drawn[space.legal(drawn)]])
        if len(found) >= count:
            break
    return found[:count]


def enumerate_block(space: Space, base: Vectors, names: Sequence[str]) -> Vectors:
    """All legal vectors that differ from `base` (one row) in the named decisions only, in lexicographic order."""
    columns = [space.sketch.position(name) for name in names]
    widths = [len(space.sketch.decisions[c].choices) for c in columns]
    grid = np.indices(widths, np.int64).reshape(len(widths), -1).T
    found = np.repeat(base, len(grid), axis=0)
    found[:, columns] = grid
    return found[space.legal(found)]


def enumerate_all(space: Space, most: int = 1 << 20) -> Vectors:
    """Every legal vector of a small space; raises `ValueError` for one of more than `most` vectors."""
    if space.sketch.size > most:
        raise ValueError(f"{space.sketch.rule} has {space.sketch.size} vectors, more than {most}")
    return enumerate_block(space, space.start(), [d.name for d in space.sketch.decisions])
