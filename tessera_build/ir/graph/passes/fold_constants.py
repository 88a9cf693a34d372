"""Evaluate at build time what depends on constants alone.

Takes a module; gives it with such nodes replaced by constants. Invariant: the bytes of a folded constant are the same
on every machine, so only ops whose reference is `ordered` are folded (no BLAS, no vectorised libm), elementary
functions as kernels compute them, and matrix products without BLAS; no fold makes the module larger by more than
`growth_bytes`, and all folds of a pass together make at most `allowance_bytes` beyond twice the constants that the
module came with, and take few seconds: a small file cannot ask for any amount of memory or time.

    before:  %1 = "tgraph.add"(1, 1)
             %2 = "tgraph.sqrt"(%1)
             %3 = "tgraph.mul"(%x, %2)
             return %3
    after:   %1 = "tgraph.mul"(%x, 1.41421354)
             return %1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.math.expand import can_expand
from tessera_build.ir.core.math.numpy_emitter import computed
from tessera_build.ir.core.types import Type, dtype_of
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, Attribute, Module
from tessera_build.ir.graph.ops.contraction import matmul_in_order
from tessera_build.ir.graph.ops.ordered import effort_of
from tessera_build.ir.graph.sweep import Rule, Site, rewrite

_MOST_COMPUTED = 1 << 20  # elements of an elementary function
# Of one product and of all, by `effort_of`: 1 and 8 s on a Zen 4. Positions times weights, twice in each layer of
# DeBERTa-base, are 0.3e9.
_MOST_EFFORT = 1 << 30
_MOST_OF_ALL = 1 << 33


@dataclass(frozen=True, slots=True)
class FoldConstants:
    """Fold nodes over constants; a result may be larger than its operands by `growth_bytes` at most.

    Operands count as `widening` times as large: weights that are stored as bytes, or less, and computed with as floats.
    """

    growth_bytes: int = 4 << 20
    widening: int = 1
    allowance_bytes: int = 64 << 20

    def run(self, module: Module) -> Module:
        """The module with constants folded."""
        came = sum(array.nbytes for array in module.constants.values())
        left = _Left(self.allowance_bytes + 2 * self.widening * came, _MOST_OF_ALL)
        return rewrite(module, lambda: self._rule(left))

    def _rule(self, left: _Left) -> Rule:
        def fold(site: Site) -> Sequence[int] | None:
            arrays = [site.to.array(value) for value in site.inputs]
            operands = [array for array in arrays if array is not None]
            if len(operands) != len(arrays) or any(_symbolic(a) for a in site.node.attributes.values()):
                return None
            evaluate = _evaluation(site, operands, left)
            result_bytes = sum(_bytes(site.old.types[output]) for output in site.node.outputs)
            distinct = {id(array): array.nbytes for array in operands}
            most = min(self.widening * sum(distinct.values()) + self.growth_bytes, left.bytes)
            if evaluate is None or result_bytes > most:
                return None
            with np.errstate(all="ignore"):
                results = evaluate()
            if results is None:
                return None
            left.bytes -= result_bytes
            left.effort -= _effort(site, operands)
            return [site.to.constant(result, _name(site, operands)) for result in results]

        return fold


@dataclass(slots=True)
class _Left:
    """What a pass may still spend: bytes of constants, and effort on products."""

    bytes: int
    effort: int


_Evaluation = Callable[[], Sequence[Array] | None]


def _evaluation(site: Site, operands: Sequence[Array], left: _Left) -> _Evaluation | None:
    """How to get the same bytes on every machine; none where there is no way, or none that is quick enough.

    Gives nothing for a node that reads outside its data: a run that comes there says so.
    """
    op, attributes = op_named(site.node.op), site.node.attributes
    evaluate = op.evaluate

    def evaluated() -> Sequence[Array] | None:
        try:
            return None if evaluate is None else evaluate(operands, attributes, {})
        except TesseraError as error:
            if error.code != "INDEX_OUT_OF_RANGE":
                raise
        return None

    if op.ordered:
        return evaluated
    if _is_elementary(op.name, operands):
        return lambda: (computed(op.name, operands),)
    if op.name == "matmul" and _effort(site, operands) <= min(_MOST_EFFORT, left.effort):
        return lambda: (matmul_in_order(operands, attributes),)
    return None


def _effort(site: Site, operands: Sequence[Array]) -> int:
    """That of a matrix product; 0 for any other node."""
    if site.node.op != "matmul":
        return 0
    depth = operands[0].shape[-2 if site.node.attributes.get("transpose_a") else -1]
    return effort_of(site.old.types[site.node.outputs[0]].static_shape, depth)


def _is_elementary(op: str, operands: Sequence[Array]) -> bool:
    """Whether it is an elementary function of floats of one type, and few enough: a million take 0.2 to 5 s."""
    types = {dtype_of(array.dtype) for array in operands}
    if len(types) != 1 or not all(t.is_float and can_expand(op, t.name) for t in types):
        return False
    return math.prod(np.broadcast_shapes(*(array.shape for array in operands))) <= _MOST_COMPUTED


def _symbolic(value: Attribute) -> bool:
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(_symbolic(v) for v in value))


def _bytes(type_: Type) -> int:
    total = type_.dtype.bytes
    for extent in type_.static_shape:
        total *= extent
    return total


def _name(site: Site, operands: Sequence[Array]) -> str:
    """A folded constant is reported under the name of its largest operand: `conv1.weight` stays `conv1.weight`."""
    if not operands:
        return ""
    largest = max(range(len(operands)), key=lambda i: operands[i].nbytes)
    return site.to.name(site.inputs[largest])
