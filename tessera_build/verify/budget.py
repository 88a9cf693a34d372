"""What a proof may cost in memory: the references keep every value of the model, and a few bytes can ask for any size.

Takes the module as a frontend made it; gives nothing, or a `VerificationError` before anything is computed. Invariant:
what is counted is what the references and the comparison hold at most: all values, and wide copies of a node's own.
"""

import math
from typing import Final

from tessera_build.ir.core.dims import evaluate, symbols_of
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Module
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import Sizes, choose_sizes

DEFAULT_BYTES: Final = 3 << 29
# Activations of networks for large images reach some tens of times their weights.
_BYTES_PER_WEIGHT_BYTE: Final = 64
# While a node is computed, its operands and results are there in float64, a sum before and after it is added to.
_WORKING_BYTES: Final = 24


def check_affordable(module: Module, limit: int | None = None) -> None:
    """Refuse a proof whose values take more than `limit` bytes together."""
    weights = sum(array.nbytes for array in module.constants.values())
    allowed = max(DEFAULT_BYTES, _BYTES_PER_WEIGHT_BYTE * weights) if limit is None else limit
    needed = max((value_bytes(module, s) + working_bytes(module, s) for s in choose_sizes(module)), default=0)
    if needed > allowed:
        raise VerificationError(
            "PROOF_TOO_LARGE",
            "the values of the model are too large to be proved within the allowed memory",
            expected=f"at most {allowed >> 20} MiB",
            found=f"{needed >> 20} MiB",
            hint="allow more with --proof-memory 16GiB, bound dims with --dims, or leave out the proof: --no-verify",
        )


def value_bytes(module: Module, sizes: Sizes) -> int:
    """All values of all entries at these sizes; those whose size depends on data are left out."""
    types = [type_ for function in module.entries.values() for type_ in function.types.values()]
    return sum(type_.dtype.bytes * _elements(type_, sizes) for type_ in types)


def working_bytes(module: Module, sizes: Sizes) -> int:
    """What the node with the largest operands and results takes beside them, at these sizes."""
    return _WORKING_BYTES * max(
        (
            sum(_elements(function.types[value], sizes) for value in (*node.inputs, *node.outputs))
            for function in module.entries.values()
            for node in graph_nodes(function)
        ),
        default=0,
    )


def _elements(type_: Type, sizes: Sizes) -> int:
    if not all(symbols_of(extent) <= sizes.keys() for extent in type_.shape):
        return 0
    return math.prod(evaluate(extent, sizes) for extent in type_.shape)
