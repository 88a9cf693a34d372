"""A loop's turn that ends what the turn before has begun does so while it computes a tile of its own.

Before: a tile is computed a few registers at a time; in front of it stands what a later turn wants, behind it what ends
and stores a tile of the turn before, and what reads the new one. After: all that the first half of the tile does not
wait for, and that does not wait for the other half, stands between the two. Invariant: each node stands behind what it
reads; what touches memory keeps its order, but for loads, which may pass each other.

Until it is stored, the older tile holds registers. Rows of 128 of a softmax spilled four of eight, and stores are what
multiply-adds wait for. Before the new tile is begun the older one waits for the sum that the turn before has just
ended, and the processor with it: 1.2 times the time. In between: 0.93 to 0.98 (Zen 4; docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tessera_build.ir.core.node import Node
from tessera_build.ir.core.structure import captured, defs_of, regions_of, uses_of
from tessera_build.ir.target import kernel as k


def ended_early(nodes: Sequence[Node], carried: Iterable[int], halves: tuple[int, int, int]) -> list[Node]:
    """A loop's body in that order; as it is, where it stores nothing that only the turns before it have made.

    `carried`: arguments of the body. `halves`: where the tile begins, is half done, and ends.
    """
    begin, middle, end = halves
    first, second = list(nodes[begin:middle]), list(nodes[middle:end])
    wanted, later = _wanted(nodes[:begin], [*first, *second])
    early, late = _ready(nodes[end:], second)
    older = _made_before(nodes, carried)
    if not any(isinstance(node, k.Store) and node.value in older for node in early):
        return list(nodes)
    return [*wanted, *first, *later, *early, *second, *late]


def _wanted(before: Sequence[Node], tile: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """What a tile needs of the nodes in front of it, and the rest."""
    if any(type(node).effects and not isinstance(node, k.Load) for node in before):
        return list(before), []
    wanted, later = list[Node](), list[Node]()
    needed = {value for node in tile for value in _reads(node)}
    for node in reversed(before):
        if needed.isdisjoint(defs_of(node)):
            later.append(node)
        else:
            wanted.append(node)
            needed.update(_reads(node))
    return wanted[::-1], later[::-1]


def _ready(behind: Sequence[Node], missing: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """What of the nodes behind may stand in front of the missing ones, and the rest."""
    values = {value for node in missing for value in defs_of(node)}
    may_touch = not any(type(node).effects for node in missing)
    early, late = list[Node](), list[Node]()
    for node in behind:
        touches = type(node).effects
        if values.isdisjoint(_reads(node)) and (may_touch or not touches):
            early.append(node)
        else:
            late.append(node)
            values.update(defs_of(node))
            may_touch = may_touch and not touches
    return early, late


def _made_before(nodes: Sequence[Node], carried: Iterable[int]) -> set[int]:
    """What is made of carried values and of nothing that this turn reads from memory."""
    older, fresh = set(carried), set[int]()
    for node in nodes:
        reads = _reads(node)
        if type(node).effects or not fresh.isdisjoint(reads):
            fresh.update(defs_of(node))
        elif not older.isdisjoint(reads):
            older.update(defs_of(node))
    return older


def _reads(node: Node) -> tuple[int, ...]:
    """Values that a node or what its regions hold reads."""
    return (*uses_of(node), *captured(regions_of(node)))
