"""One module whose constants go through every op that may be folded; its digest, for a second process.

Takes nothing; gives text. Invariant: the same text on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np

from tessera_build.ir.core.scalar import SCALAR_OPS
from tessera_build.ir.core.types import BOOL, F32, I32
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Module
from tessera_build.ir.graph.ops import OPS
from tessera_build.ir.graph.ops.elementwise import BITWISE, SHIFTS
from tessera_build.ir.graph.passes.fold_constants import FoldConstants
from tests.graph.graphs import normal


def folded_module() -> Module:
    """Every ordered elementwise op, every reduction and products of matrices over constants, folded."""
    b = GraphBuilder()
    x, y = b.constant(normal(0, 37, 53, 11)), b.constant(np.abs(normal(1, 37, 53, 11)))
    flags, bits = b.op("lt", x, y), b.op("cast", y, dtype=I32)
    for op in OPS.values():
        if op.elementwise and op.ordered and op.name not in ("cast", "bitcast", "select"):
            operands = (flags, flags) if op.name in BITWISE else (bits, bits) if op.name in SHIFTS else (y, x)
            b.output(op.name, b.op(op.name, *operands[: SCALAR_OPS[op.name]]))
    b.output("select", b.op("select", flags, x, y))
    for dtype in (I32, BOOL, F32):
        b.output(f"cast {dtype}", b.op("cast", x, dtype=dtype))
    for kind in ("sum", "prod", "max", "min"):
        for axes in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)):
            b.output(f"{kind} {axes}", b.op("reduce", x, kind=kind, axes=axes))
    window = {"window": (3, 2, 1), "strides": (1, 2, 1), "dilations": (1, 1, 1), "low": (1, 0, 0), "high": (0, 1, 0)}
    b.output("window", b.op("reduce_window", x, kind="sum", **window))
    b.output("matmul", b.op("matmul", x, y, transpose_b=True))
    b.output("wide matmul", b.op("matmul", x, b.constant(normal(2, 11, 99))))
    return FoldConstants().run(b.finish())


def folded_digest() -> str:
    """A digest over the digests of all folded constants."""
    return hashlib.sha256("".join(sorted(folded_module().constants)).encode()).hexdigest()
