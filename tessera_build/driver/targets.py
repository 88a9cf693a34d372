"""The targets that come with Tessera, beside what this machine is.

Takes: nothing but the machine. Gives: `TargetFacts`. Invariant: a target that this machine cannot name is left out.
"""

from dataclasses import dataclass

from tessera_build.config import HostError, list_targets, load_target
from tessera_runtime.cpu.machine import normal_arch, normal_feature, this_machine


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """One target; `runs_here` says whether this machine has all its features."""

    name: str
    arch: str
    vector_bits: int
    features: tuple[str, ...]
    runs_here: bool


def targets() -> tuple[TargetFacts, ...]:
    """All targets, in the order of their names."""
    machine = this_machine()
    found: list[TargetFacts] = []
    for name in list_targets():
        try:
            target = load_target(name)
        except HostError:  # `native` on a machine that can run none of the targets
            continue
        fits = normal_arch(target.arch) == machine.arch and machine.system == "Linux"
        runs = fits and all(normal_feature(feature) in machine.features for feature in target.features)
        found.append(TargetFacts(name, target.arch, target.vector_bits, target.features, runs))
    return tuple(found)
