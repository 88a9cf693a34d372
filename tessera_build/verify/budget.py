"""What a proof may cost: the references keep every value of the model, and a few bytes can ask for any size or work.

Takes the module as a frontend made it, and what it was lowered to; gives nothing, or a `VerificationError` before
anything is computed. Invariant: memory is what the references and the comparison hold at most: all values, and wide
copies of a node's own; work is the arithmetic of all launches, those in loops as often as the loops may go round.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Final

from tessera_build.ir.core.dims import Extent, evaluate, symbols_of
from tessera_build.ir.core.node import Node
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import GraphNode, Module
from tessera_build.ir.graph.ops.op import extent_of
from tessera_build.ir.graph.ops.sizes import UNBOUNDED
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.lower.program.estimate import operations_of
from tessera_build.lower.program.records import LoweredVariant
from tessera_build.verify.errors import VerificationError
from tessera_build.verify.inputs import Sizes, choose_sizes

DEFAULT_BYTES: Final = 3 << 29
# Activations of networks for large images reach some tens of times their weights.
_BYTES_PER_WEIGHT_BYTE: Final = 64
# While a node is computed, its operands and results are there in float64, a sum before and after it is added to.
_WORKING_BYTES: Final = 24
# Ten times the dearest public case; half a minute of the references on one core.
DEFAULT_OPERATIONS: Final = 3e11
# A convolution uses a weight once for every pixel: those of networks for images come to some thousand.
_OPERATIONS_PER_WEIGHT_BYTE: Final = 2048
MOST_STEPS: Final = 200_000  # nodes and iterations of the reference, at about 10 us each
_MOST_TRIPS: Final = MOST_STEPS  # of loops that the proof refuses by themselves
USUAL_SIZE: Final = 6  # of what only data tell, without a bound


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


def check_work(source: Module, module: Module, lowered: LoweredVariant, limit: float | None = None) -> None:
    """Refuse a proof that computes more than `limit` operations; `module` is what was lowered."""
    weights = sum(array.nbytes for array in source.constants.values())
    allowed = max(DEFAULT_OPERATIONS, _OPERATIONS_PER_WEIGHT_BYTE * weights) if limit is None else limit
    needed = max((operations_at(module, lowered, sizes) for sizes in choose_sizes(source)), default=0.0)
    if needed > allowed:
        raise VerificationError(
            "PROOF_TOO_LONG",
            "the model computes more than a proof may",
            expected=f"at most {allowed:.3g} operations",
            found=f"{needed:.3g} operations",
            hint="allow more with --proof-operations 1e13, bound dims with --dims, or leave out the proof: --no-verify",
        )


def operations_at(module: Module, lowered: LoweredVariant, sizes: Sizes) -> float:
    """The arithmetic of one run of every entry at these sizes."""
    known = {**sizes, **assumed_sizes(module, sizes)}
    total = 0.0
    for function, records in zip(module.entries.values(), lowered.launches, strict=True):
        trips = _trips(function.nodes, known)
        total += sum(operations_of(r.tile_function, known) * math.prod(trips[: r.depth]) for r in records)
    return total


def assumed_sizes(module: Module, sizes: Sizes) -> Sizes:
    """Sizes that a run reads from data: the most that they can be, or a few; of loops, the second iteration."""
    found: dict[str, int] = {}
    for function in module.entries.values():
        for name, upper in data_sizes(function).items():
            known = upper != UNBOUNDED and symbols_of(upper) <= {*sizes, *found}
            found[name] = evaluate(upper, {**sizes, **found}) if known else USUAL_SIZE
        found |= {str(node.attributes["index"]): 1 for node in graph_nodes(function) if "index" in node.attributes}
    return found


def _trips(nodes: Sequence[Node], sizes: Sizes) -> list[int]:
    """By depth, how often the longest loop there goes round; a choice goes round once."""
    own, inner = 1, list[int]()
    regions = [(node, region) for node in nodes if isinstance(node, GraphNode) for region in node.regions]
    for node, region in regions:
        if node.op == "loop":
            own = max(own, _evaluated(extent_of(node.attributes["trips"]), sizes))
        deeper = _trips(region.nodes, sizes)
        inner = [max(pair) for pair in itertools.zip_longest(inner, deeper, fillvalue=1)]
    return [own, *inner] if regions else []


def _evaluated(trips: Extent, sizes: Sizes) -> int:
    known = symbols_of(trips) <= sizes.keys()
    return min(evaluate(trips, sizes), _MOST_TRIPS) if known else USUAL_SIZE


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
