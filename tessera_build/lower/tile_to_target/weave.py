"""In which order the registers of an elementwise tile are computed: a few at a time, operation by operation.

Takes what the computation of each register appended; gives the same nodes in another order. A processor looks for work
among the operations that wait for their operands, which are few chains where each is long: an erf, 37 operations, took
18 cycles a register of a Zen 5, where its multiply-adds alone are 10. Invariant: a node stands behind all that it
reads; operations and their operands are the same, and so are the bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tessera_build.ir.core.node import Node
from tessera_build.ir.core.structure import captured, defs_of, regions_of, uses_of
from tessera_build.ir.target.kernel import Const

# Registers that are computed in turns at most. Measured on a Zen 5, 400,000 elements, against one after the other: of
# four, exp 1.06 times as fast, sigmoid and elu 1.08, gelu and tanh 1.12, erf 1.18, log 1.20; of two about half of that.
# Six beside four: erf 1.15, gelu 1.08, tanh 1.03, the others 0.99 to 1.03; eight: the same, but for sigmoid, 0.98.
_MOST = 6
# Shorter chains end before the processor runs out of others.
_LEAST_OPERATIONS = 8


def woven(chains: Sequence[Sequence[Node]], registers: int) -> list[list[Node]]:
    """The nodes of all chains in groups, as many in turns as have room beside the whole tile in this many registers.

    `chains`: what each register of the tile appended, in order; a later one may read what an earlier one made. Short
    ones are one group.
    """
    longest = max(chains, key=len, default=())
    if len(longest) < _LEAST_OPERATIONS:
        return [[node for chain in chains for node in chain]]
    width = _width(longest, registers - len(chains))
    return [list(_in_turns(chains[first : first + width])) for first in range(0, len(chains), width)]


def _width(chain: Sequence[Node], room: int) -> int:
    return max(1, min(_MOST, room // max(1, _most_alive(chain))))


def _most_alive(chain: Sequence[Node]) -> int:
    """How many values of a chain are made and still read later, at the place where these are most; constants, which
    all chains share and which come from memory where registers are short, do not count."""
    operations = [node for node in chain if not isinstance(node, Const)]
    made = {value: number for number, node in enumerate(operations) for value in defs_of(node)}
    last = {value: number for number, node in enumerate(operations) for value in _reads(node) if value in made}
    return max(
        (sum(made[value] <= number < last[value] for value in last) for number in range(len(operations))), default=0
    )


def _in_turns(chains: Sequence[Sequence[Node]]) -> Iterator[Node]:
    """One operation of each chain after the other; one whose operands another chain has not made yet waits."""
    waiting = {value for chain in chains for node in chain for value in defs_of(node)}
    queues = [list(reversed(chain)) for chain in chains]
    while any(queues):
        for queue in queues:
            while queue and waiting.isdisjoint(_reads(queue[-1])):
                node = queue.pop()
                waiting.difference_update(defs_of(node))
                yield node
                if not isinstance(node, Const):
                    break


def _reads(node: Node) -> tuple[int, ...]:
    """Values that a node or what its regions hold reads."""
    return (*uses_of(node), *captured(regions_of(node)))
