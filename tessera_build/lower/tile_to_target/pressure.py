"""How many registers hold tiles that were computed before an elementwise map and are read after it.

Takes a Tile function and the lanes of a register; gives for each map, by its result, the registers of all other tiles.
Invariant: an estimate only, on which an order of instructions may depend, but no value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.structure import captured, defs_of, regions_of, uses_of
from tessera_build.ir.tile import nodes as t


def registers_beside(function: Function, lanes: int) -> dict[int, int]:
    """Registers that other tiles hold while a map is computed, by the map's result."""
    found: dict[int, int] = {}
    _before(function, lanes, function.nodes, set(function.results), found)
    return found


def _before(function: Function, lanes: int, nodes: Sequence[Node], wanted: set[int], found: dict[int, int]) -> set[int]:
    """What is wanted before these nodes, given what is after them; notes the maps among them."""
    live = set(wanted)
    for node in reversed(nodes):
        live.difference_update(defs_of(node))
        if isinstance(node, t.Map):
            found[node.result] = sum(_registers(function, value, lanes) for value in live)
        inside: set[int] = set()
        for region in regions_of(node):
            # What a loop reads from outside is wanted until its last turn.
            again = captured((region,)) if isinstance(node, t.For) else ()
            inside |= _before(function, lanes, region.nodes, live.union(again, region.results), found)
            inside.difference_update(region.args)
        live |= inside
        live.update(uses_of(node))
    return live


def _registers(function: Function, value: int, lanes: int) -> int:
    kind = function.types[value]
    if kind.container != "vector":
        return 0
    *outer, last = kind.static_shape or (1,)
    return math.prod(outer) * -(-last // lanes)
