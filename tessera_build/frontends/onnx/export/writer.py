"""An ONNX graph while it is written: blocks of nodes, names that are used once, weights by digest.

Takes operators with operands; gives `Operand`s, names with their element types. Invariant: every name is made once in
the whole model, graphs inside nodes included, and what is made of equal requests in an equal order is equal, so that
the bytes of a model are a function of its graph.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from tessera_build.frontends.onnx.export.kernels import carrier
from tessera_build.frontends.onnx.load import ELEMENT_TYPES
from tessera_build.ir.core.types import BOOL, I64, U64, DType, Type, dtype_of
from tessera_build.ir.graph.builder import digest_of
from tessera_build.ir.graph.nodes import Array

OnnxAttribute = int | float | str | tuple[int, ...] | tuple[float, ...]
CODES: Mapping[str, int] = {name: code for code, name in ELEMENT_TYPES.items()}
_NAMED = re.compile(r"[^A-Za-z0-9_.]+")


@dataclass(frozen=True, slots=True)
class Operand:
    """A value of the ONNX graph."""

    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Port:
    """An input or a result of a graph; the shape is left open where it is not one of the whole model's."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One node. `origin` says where the author made what it computes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, OnnxAttribute]
    graphs: Mapping[str, Block]
    origin: str


@dataclass(slots=True, eq=False)
class Block:
    """A graph: the whole model's, or one inside a node. `extents` has what was computed of dims in it, by text."""

    name: str
    inputs: list[Port] = field(default_factory=list[Port])
    nodes: list[Written] = field(default_factory=list[Written])
    outputs: list[Port] = field(default_factory=list[Port])
    extents: dict[str, Operand] = field(default_factory=dict[str, Operand])
    symbols: dict[str, Operand] = field(default_factory=dict[str, Operand])


class Writer:
    """Writes the model's graph; inside `with block(...)`, one of a node."""

    def __init__(self) -> None:
        self.blocks: list[Block] = [Block("main")]
        self.weights: dict[str, tuple[str, Array]] = {}
        self.origin = ""
        self.renamed: dict[str, str] = {}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    @property
    def here(self) -> Block:
        """The graph that nodes go into now."""
        return self.blocks[-1]

    @property
    def root(self) -> Block:
        """The model's own graph."""
        return self.blocks[0]

    @contextmanager
    def block(self, name: str) -> Generator[Block]:
        """Write a graph of a node; what it reads of the graphs around it needs no mention."""
        self.blocks.append(Block(self.fresh(name)))
        try:
            yield self.here
        finally:
            self.blocks.pop()

    def fresh(self, base: str) -> str:
        """A name that nothing else has, close to `base`."""
        base = _NAMED.sub("_", base).strip("_") or "value"
        name = base
        while name in self._taken:
            self._counts[base] = self._counts.get(base, 0) + 1
            name = f"{base}_{self._counts[base]}"
        self._taken.add(name)
        return name

    def claim(self, name: str) -> str:
        """A name as it is: those of inputs and results are the author's."""
        self._taken.add(name)
        return name

    def name(self, value: Operand, name: str) -> None:
        """Call a value by the name of one of the model's results; a copy of it where it has a name that stays."""
        made = {output for node in self.root.nodes for output in node.outputs}
        if value.name not in made or value.name in self.renamed:
            value = self.emit("Identity", value, dtype=value.dtype)
        self.renamed[value.name] = name

    def emit(self, op: str, *inputs: Operand | None, dtype: DType, **attributes: OnnxAttribute) -> Operand:
        """Append a node and give its only result."""
        (result,) = self.node(op, inputs, (dtype,), attributes)
        return result

    def node(
        self,
        op: str,
        inputs: Sequence[Operand | None],
        dtypes: Sequence[DType],
        attributes: Mapping[str, OnnxAttribute] | None = None,
        graphs: Mapping[str, Block] | None = None,
    ) -> tuple[Operand, ...]:
        """Append a node and give its results; an operand that is left out is None."""
        results = tuple(Operand(self.fresh(op.lower()), dtype) for dtype in dtypes)
        names = tuple("" if i is None else i.name for i in inputs)
        made = Written(op, names, tuple(r.name for r in results), attributes or {}, graphs or {}, self.origin)
        self.here.nodes.append(made)
        return results

    def run(self, op: str, *inputs: Operand, dtype: DType | None = None, **attributes: OnnxAttribute) -> Operand:
        """Append a node whose operands are of one element type, by way of a wider one where that is what can be run.

        `dtype` is the result's; by default the operands'.
        """
        own = inputs[0].dtype
        through = carrier(op, own)
        operands = [self.cast(i, through) for i in inputs]
        result = self.emit(op, *operands, dtype=through if dtype is None else dtype, **attributes)
        return self.cast(result, own) if dtype is None else result

    def run_on(self, op: str, x: Operand, *others: Operand, **attributes: OnnxAttribute) -> Operand:
        """Append a node whose result has the element type of its first operand alone."""
        through = carrier(op, x.dtype)
        return self.cast(self.emit(op, self.cast(x, through), *others, dtype=through, **attributes), x.dtype)

    def cast(self, value: Operand, dtype: DType) -> Operand:
        """The value as another element type, as ONNX's Cast has it; to storage floats without saturation."""
        if value.dtype == dtype:
            return value
        return self.emit("Cast", value, dtype=dtype, to=CODES[dtype.name], **_unsaturated(dtype))

    def weight(self, digest: str, array: Array, name: str = "") -> Operand:
        """A constant of the model."""
        if digest not in self.weights:
            self.weights[digest] = self.fresh(name or "constant"), array
        return Operand(self.weights[digest][0], dtype_of(array.dtype))

    def weight_of(self, array: Array) -> Operand:
        """A constant by its content."""
        return self.weight(digest_of(array), array)

    def constant(self, values: ArrayLike, dtype: DType) -> Operand:
        """A constant that only the export needs; equal ones are one."""
        return self.weight_of(np.asarray(values).astype(dtype.numpy))

    def integers(self, *values: int) -> Operand:
        """A vector of i64."""
        return self.constant(np.asarray(values, np.int64), I64)

    def number(self, value: float | int | bool, dtype: DType) -> Operand:
        """A scalar."""
        return self.constant(value, dtype)

    def reshaped(self, value: Operand, *shape: int) -> Operand:
        """The value with a known shape, one extent of which may be -1."""
        return self.run_on("Reshape", value, self.integers(*shape))

    def where(self, condition: Operand, yes: Operand, no: Operand) -> Operand:
        """Where the condition holds the one, else the other; truth values by their own operators."""
        if yes.dtype == BOOL:
            kept = self.emit("And", condition, yes, dtype=BOOL)
            other = self.emit("And", self.emit("Not", condition, dtype=BOOL), no, dtype=BOOL)
            return self.emit("Or", kept, other, dtype=BOOL)
        if yes.dtype == U64:  # for which onnxruntime has no kernel
            sides = [self.emit("BitCast", side, dtype=I64, to=CODES["i64"]) for side in (yes, no)]
            return self.emit("BitCast", self.where(condition, *sides), dtype=U64, to=CODES["u64"])
        through = carrier("Where", yes.dtype)
        result = self.emit("Where", condition, self.cast(yes, through), self.cast(no, through), dtype=through)
        return self.cast(result, yes.dtype)


def _unsaturated(dtype: DType) -> dict[str, OnnxAttribute]:
    return {"saturate": 0} if dtype.is_float and dtype.bits == 8 else {}
