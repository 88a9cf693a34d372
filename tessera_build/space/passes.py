"""Whether the passes of a row task can take turns on different rows.

Takes definitions; gives a count of passes. Invariant: a reduction that may run beyond the last row never stores what it
computes.
"""

from __future__ import annotations

from collections.abc import Iterable

from tessera_build.ir.core.node import Node
from tessera_build.ir.schedule.nodes import Compute

# What a later pass would rather read back than compute again.
COSTLY = frozenset({"exp", "log", "tanh", "erf", "sigmoid", "logistic", "pow", "sin", "cos", "div", "sqrt"})
_MOST = 2


def passes_in_turns(nodes: Iterable[Node]) -> int:
    """How many reductions can run on rows ahead of the one that is being finished; 0 where they cannot."""
    definitions = [n for n in nodes if isinstance(n, Compute)]
    reductions = [n for n in definitions if n.combine != "none"]
    if not 0 < len(reductions) <= _MOST:
        return 0
    spills = [
        n for n in definitions if n.result == reductions[0].reads[0] and any(o.name in COSTLY for o in n.program.ops)
    ]
    return 0 if len(reductions) > 1 and spills else len(reductions)
