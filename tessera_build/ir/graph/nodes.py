"""The grammar of Graph IR: one node class, functions as entries of a module, constants held by digest.

Takes op names from the table in `ops/`; gives pure dataflow. Invariant: a node has no effect but its results, every
constant is a read-only array in `Module.constants` under the digest that its node names, and nothing here knows how
anything is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.dims import Dim, Extent, Range
from tessera_build.ir.core.node import Def, Function, Node, OpName, Region, Span, Use
from tessera_build.ir.core.types import DType

Attribute = bool | int | float | str | DType | Dim | tuple["Attribute", ...]
Array = NDArray[np.generic]
Guard = tuple[Extent, str, Extent, str]  # left, relation, right, message


@dataclass(frozen=True, slots=True, eq=False)
class GraphNode(Node):
    """Apply `op` to `inputs`. In text: `%o = "tgraph.<op>"(%i...) <{attributes}> ({regions})`.

    A region reads values of the blocks around it. It holds no `constant`: those stand in the outermost block.
    """

    dialect: ClassVar[str] = "tgraph"
    binds: ClassVar[tuple[str, ...]] = ("index",)
    defines: ClassVar[tuple[str, ...]] = ("names",)

    op: OpName
    inputs: tuple[Use, ...]
    outputs: tuple[Def, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    regions: tuple[Region, ...] = ()

    @property
    def output(self) -> int:
        """The only result; raises `ValueError` when there are several."""
        (only,) = self.outputs
        return only


@dataclass(frozen=True, slots=True)
class StatePair:
    """State is a value that comes in and goes out again: input `incoming` is replaced by result `outgoing`."""

    incoming: int
    outgoing: int


@dataclass(frozen=True, slots=True)
class Result:
    """What a result of the source model is made of: outputs by name, and `labels` that name columns or elements.

    `kind`: a `tensor`; a `sequence` of them; `integer_maps` or `word_maps`, one for each row of scores, from labels to
    scores; `words`, for which the output holds places among the labels; `nothing`, an optional without a value.
    """

    name: str
    kind: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """All entries of a model, the constants they share, and the range of every symbolic dim.

    `input_names` and `output_names` give, per entry, the names a person uses; `constants` maps digest to array and
    `constant_names` maps digest to the name it had in the source (for reports only, never hashed). A guard
    (left, relation, right, message) with the relation == or >= must hold for the dims of a call; all entries rely on
    it; `guard_spans` says where it was asked for, where that is known (for reports only). `results` has, for entries
    whose source gives more than tensors, all that it gives. `magnitudes` has, for inputs that are parameters with
    numbers in the source, about how large those are, if not about 1: a proof draws them so. `derivatives` names the
    entries that give some: their weights take up no other constants (see `FoldScale`).
    """

    entries: Mapping[str, Function]
    constants: Mapping[str, Array]
    dims: Mapping[str, Range]
    input_names: Mapping[str, tuple[str, ...]]
    output_names: Mapping[str, tuple[str, ...]]
    states: Mapping[str, tuple[StatePair, ...]] = field(default_factory=dict[str, tuple[StatePair, ...]])
    constant_names: Mapping[str, str] = field(default_factory=dict[str, str])
    guards: tuple[Guard, ...] = ()
    results: Mapping[str, tuple[Result, ...]] = field(default_factory=dict[str, tuple[Result, ...]])
    guard_spans: Mapping[Guard, Span | None] = field(default_factory=dict[Guard, Span | None])
    magnitudes: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    derivatives: frozenset[str] = frozenset()
