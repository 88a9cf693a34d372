"""What a proof is of, and what it is held to.

Takes nothing; gives the records of a variant under proof and of a case with the references' answers. Invariant: a
case's answers were computed before anything that is proved ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bundle_format.writer import Variant
from tessera_build.config import PrecisionConfig
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.groups import Case

GRAPH: Final = "graph"
ONNXRUNTIME: Final = "onnxruntime"


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """One variant before it is written: `source` is the graph before the passes, `module` the one after them.

    `symbols` maps a kernel's name to the function that it became; equal kernels became one.
    """

    source: Module
    module: Module
    lowered: LoweredVariant
    symbols: Mapping[str, str]
    variant: Variant
    precision: PrecisionConfig


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """A case with the answers of each reference, by its name and the output's.

    `apart`: of onnxruntime's runs with and without its optimiser, by output, where both were made.
    """

    case: Case
    answers: Mapping[str, Mapping[str, Array]]
    references: Mapping[str, str]
    apart: Mapping[str, float] = field(default_factory=dict[str, float])
