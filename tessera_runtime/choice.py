"""Which variant of a bundle this machine runs, and why.

Takes: the variants of an open bundle and a description of the machine.
Gives: `Choice`: the variant with the most features among those that fit, and a reason for each variant.
Invariant: a variant is chosen only when every feature it needs is present, so its code never meets an unknown
instruction.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bundle_format.reader import VariantRecord
from bundle_format.variant_checks import CPU_KIND
from tessera_runtime.cpu.machine import Machine, normal_arch, normal_feature
from tessera_runtime.errors import MachineError


class Choice(NamedTuple):
    """A chosen variant; `reasons` has one line for each variant of the bundle."""

    variant: VariantRecord
    reasons: tuple[str, ...]


def choose_variant(variants: Sequence[VariantRecord], machine: Machine) -> Choice:
    """The best variant for the machine, or a `MachineError` that says of each variant what is missing."""
    refusals = {variant.config.target.name: _refusal(variant, machine) for variant in variants}
    fitting = [variant for variant in variants if refusals[variant.config.target.name] is None]
    if not fitting:
        raise MachineError(
            "MACHINE_UNSUITABLE",
            "the bundle has no variant for this machine",
            expected="; ".join(f"{name}: {reason}" for name, reason in refusals.items()),
            found=f"{machine.system} on {machine.arch}",
            hint="build the model again with a target for this machine: tessera build --target ...",
        )
    best = max(fitting, key=lambda variant: (len(variant.config.target.features), variant.config.target.name))
    return Choice(best, tuple(_reason(variant, best, refusals) for variant in variants))


def _reason(variant: VariantRecord, best: VariantRecord, refusals: dict[str, str | None]) -> str:
    name, features = variant.config.target.name, len(variant.config.target.features)
    refusal = refusals[name]
    if refusal is not None:
        return f"{name}: refused, {refusal}"
    if variant is best:
        return f"{name}: chosen, this machine has all {features} features that it needs"
    return f"{name}: fits, but uses fewer features ({features}) than {best.config.target.name}"


def _refusal(variant: VariantRecord, machine: Machine) -> str | None:
    target = variant.config.target
    if target.kind != CPU_KIND:
        return f"this runtime has no loader for targets of kind {target.kind!r}"
    if machine.system != "Linux":
        return f"its code is for Linux, this is {machine.system}"
    if normal_arch(target.arch) != machine.arch:
        return f"its code is for {target.arch}, this CPU is {machine.arch}"
    missing = [name for name in target.features if normal_feature(name) not in machine.features]
    return f"this CPU lacks {', '.join(missing)}" if missing else None
