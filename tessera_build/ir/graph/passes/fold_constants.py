"""Evaluate at build time what depends on constants alone.

Takes a module; gives it with such nodes replaced by constants. Invariant: the bytes of a folded constant are the same
on every machine, so only ops whose reference is `ordered` are folded (no BLAS, no vectorised libm), and elementary
functions as kernels compute them; no fold makes the module larger by more than `growth_bytes`, and all folds of a pass
together make at most `allowance_bytes` beyond twice the constants that the module came with: a small file cannot ask
for any amount of memory.

    before:  %1 = "tgraph.add"(1, 1)
             %2 = "tgraph.sqrt"(%1)
             %3 = "tgraph.mul"(%x, %2)
             return %3
    after:   %1 = "tgraph.mul"(%x, 1.41421354)
             return %1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Dim
from tessera_build.ir.core.math.expand import can_expand
from tessera_build.ir.core.math.numpy_emitter import computed
from tessera_build.ir.core.types import Type, dtype_of
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, Attribute, Module
from tessera_build.ir.graph.sweep import Rule, Site, rewrite

_MOST_COMPUTED = 1 << 20  # elements of an elementary function


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
        left = [self.allowance_bytes + 2 * self.widening * sum(array.nbytes for array in module.constants.values())]
        return rewrite(module, lambda: self._rule(left))

    def _rule(self, left: list[int]) -> Rule:
        def fold(site: Site) -> Sequence[int] | None:
            op = op_named(site.node.op)
            arrays = [site.to.array(value) for value in site.inputs]
            operands = [array for array in arrays if array is not None]
            elementary = not op.ordered and _is_elementary(site.node.op, operands)
            if (
                not (op.ordered or elementary)
                or len(operands) != len(arrays)
                or any(_symbolic(a) for a in site.node.attributes.values())
            ):
                return None
            result_bytes = sum(_bytes(site.old.types[output]) for output in site.node.outputs)
            distinct = {id(array): array.nbytes for array in operands}
            if result_bytes > min(self.widening * sum(distinct.values()) + self.growth_bytes, left[0]):
                return None
            results = _evaluated(site, operands, elementary=elementary)
            if results is None:
                return None
            left[0] -= result_bytes
            return [site.to.constant(result, _name(site, operands)) for result in results]

        return fold


def _evaluated(site: Site, operands: Sequence[Array], *, elementary: bool) -> Sequence[Array] | None:
    """What the node gives; none for one that reads outside its data: a run that comes there says so."""
    evaluate = op_named(site.node.op).evaluate
    with np.errstate(all="ignore"):
        if elementary:
            return (computed(site.node.op, operands),)
        try:
            return None if evaluate is None else evaluate(operands, site.node.attributes, {})
        except TesseraError as error:
            if error.code != "INDEX_OUT_OF_RANGE":
                raise
    return None


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
