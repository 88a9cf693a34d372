"""Machines to make code for.

Takes: `configs/targets/*.yaml` or a user's own file, and for `native` the machine under us.
Gives: a frozen `TargetConfig`, all plain data. Invariant: only the target `native` depends on the machine it is
loaded on; every other name gives the same record everywhere.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tessera_build.config.document import find_document, read_document, standard_names
from tessera_build.config.errors import HostError
from tessera_build.config.kinds import FLAG, WORD, choice, integer, words
from tessera_build.config.machine import Machine, read_machine
from tessera_build.config.section import Section

ARCHITECTURES: Final = ("x86_64",)
KINDS: Final = ("cpu",)


@dataclass(frozen=True, slots=True)
class Rates:
    """What a core does in one cycle with full-width vectors, and the latency of a multiply-add in cycles."""

    multiply_adds: int
    loads: int
    latency: int


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Sizes that one core may count on; `l3` is shared by the cores of one die, 0 where there is none."""

    l1: int
    l2: int
    l3: int


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """One machine. `features` are Linux's names of what it must have; `llvm_features` are LLVM's, with their sign.

    `asks_ahead`: whether few rows ask for the weights that they read before they use them. `adds_apart`: whether
    additions of registers have units of their own beside those of multiply-adds.
    """

    name: str
    kind: str
    arch: str
    triple: str
    llvm_cpu: str
    features: tuple[str, ...]
    llvm_features: tuple[str, ...]
    vector_bits: int
    vector_registers: int
    cache_bytes: CacheBytes
    line_bytes: int
    prefer_fma: bool
    per_cycle: Rates
    asks_ahead: bool = True
    adds_apart: bool = False


def list_targets() -> tuple[str, ...]:
    """The names of the targets that come with Tessera."""
    return standard_names("targets")


def load_target(name_or_path: str | Path, machine: Machine | None = None) -> TargetConfig:
    """A target by name (`x86-64-v4`) or from a YAML file; `machine` None: the one under us, read when needed."""
    top = read_document(find_document("targets", name_or_path))
    if "detect" in top.names():
        return _detected(top, machine or read_machine())
    target = _derived(top) if "base" in top.names() else _described(top)
    top.finish()
    return target


def _described(top: Section) -> TargetConfig:
    """The target that a file writes out."""
    caches, rates = top.section("cache_bytes"), top.section("per_cycle")
    target = TargetConfig(
        name=top.get("name", WORD),
        kind=top.get("kind", choice(*KINDS)),
        arch=top.get("arch", choice(*ARCHITECTURES)),
        triple=top.get("triple", WORD),
        llvm_cpu=top.get("llvm_cpu", WORD),
        features=top.get("features", words(WORD)),
        llvm_features=top.get_or("llvm_features", words(WORD), ()),
        vector_bits=top.get("vector_bits", integer(128)),
        vector_registers=top.get("vector_registers", integer(8)),
        cache_bytes=CacheBytes(*(caches.get(level, integer(0)) for level in ("l1", "l2", "l3"))),
        line_bytes=top.get("line_bytes", integer(16)),
        prefer_fma=top.get("prefer_fma", FLAG),
        per_cycle=Rates(*(rates.get(name, integer(1)) for name in ("multiply_adds", "loads", "latency"))),
        asks_ahead=top.get_or("asks_ahead", FLAG, True),
        adds_apart=top.get_or("adds_apart", FLAG, False),
    )
    _check(top, target)
    return target


def _derived(top: Section) -> TargetConfig:
    """A target that a file writes out, with more features."""
    document = read_document(find_document("targets", top.get("base", WORD)))
    base = _described(document)
    document.finish()
    target = replace(
        base,
        name=top.get("name", WORD),
        features=base.features + top.get("features", words(WORD)),
        llvm_features=base.llvm_features + top.get("llvm_features", words(WORD)),
    )
    _check(top, target)
    return target


def _check(top: Section, target: TargetConfig) -> None:
    """Note values that do not fit together."""
    if target.vector_bits not in (128, 256, 512):
        top.refuse("vector_bits", "no such vector width", "128, 256 or 512")
    for feature in target.llvm_features:
        if feature[:1] not in ("+", "-"):
            top.refuse(
                "llvm_features", f"'{feature}' neither asks for a feature nor forbids it", f"+{feature} or -{feature}"
            )


def _detected(top: Section, machine: Machine) -> TargetConfig:
    """The first of the `detect` targets that this machine can run, with the extensions and caches it has."""
    name, candidates = top.get("name", WORD), top.get("detect", words(WORD))
    section = top.section("extensions")
    extensions = [(flag, section.get(flag, WORD)) for flag in section.names()]
    askers = top.section("asks_ahead") if "asks_ahead" in top.names() else None
    needed = {level: askers.get(level, WORD) for level in askers.names()} if askers else {}
    adders = top.section("adds_apart") if "adds_apart" in top.names() else None
    apart = {level: adders.get(level, words(WORD)) for level in adders.names()} if adders else {}
    top.finish()
    for candidate in map(load_target, candidates):
        if candidate.arch == machine.arch and machine.flags.issuperset(candidate.features):
            asks = candidate.asks_ahead and needed.get(candidate.name) in {None, *machine.flags}
            adds = candidate.adds_apart or _has(machine, apart.get(candidate.name, ()))
            chosen = replace(candidate, name=name, asks_ahead=asks, adds_apart=adds)
            return _extended(chosen, extensions, machine)
    raise HostError(
        "MACHINE_TOO_OLD",
        "this machine can run none of the targets that `native` chooses from",
        expected=", ".join(candidates),
        found=f"{machine.arch} without the features that they need",
        hint="name the machine you build for; `tessera targets` lists them",
    )


def _has(machine: Machine, flags: tuple[str, ...]) -> bool:
    """Whether a machine has some flags, and none of those with a minus sign."""
    return bool(flags) and all((flag.lstrip("-") in machine.flags) is not flag.startswith("-") for flag in flags)


def _extended(base: TargetConfig, extensions: list[tuple[str, str]], machine: Machine) -> TargetConfig:
    """The base with what this machine has beyond it. Extensions need the vectors of the base's own width."""
    present = [(flag, feature) for flag, feature in extensions if flag in machine.flags]
    caches = dict(machine.cache_bytes)
    return replace(
        base,
        features=base.features + tuple(flag for flag, _ in present),
        llvm_features=base.llvm_features + tuple(feature for _, feature in present),
        cache_bytes=CacheBytes(
            caches.get(1, base.cache_bytes.l1), caches.get(2, base.cache_bytes.l2), caches.get(3, base.cache_bytes.l3)
        ),
    )
