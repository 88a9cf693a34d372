"""All rules, in the order in which their sketches are listed and ties are decided.

Takes a workload; gives the sketches of every rule that applies. Invariant: at least one rule applies to every task that
has a schedule; adding a row here is all that a new way to compute something needs.
"""

from __future__ import annotations

from typing import Final

from tessera_build.ir.machine.cpu import CpuMachine
from tessera_build.space.rules.chain import CHAIN
from tessera_build.space.rules.column_pairs import COLUMN_PAIRS_RULE
from tessera_build.space.rules.pairs import PAIRS_RULE
from tessera_build.space.rules.product import PRODUCT
from tessera_build.space.rules.rule import Rule
from tessera_build.space.rules.strassen import STRASSEN_RULE
from tessera_build.space.rules.stream import CROSSED, POINTWISE, ROW
from tessera_build.space.rules.window import WINDOW
from tessera_build.space.rules.winograd import WINOGRAD_OF_ONE, WINOGRAD_RULE
from tessera_build.space.sketch import Sketch
from tessera_build.space.workload import Workload

RULES: Final[tuple[Rule, ...]] = (
    PRODUCT,
    WINOGRAD_RULE,
    WINOGRAD_OF_ONE,
    STRASSEN_RULE,
    PAIRS_RULE,
    COLUMN_PAIRS_RULE,
    WINDOW,
    ROW,
    CROSSED,
    POINTWISE,
    CHAIN,
)


def sketches_of(work: Workload, machine: CpuMachine) -> tuple[tuple[Rule, Sketch], ...]:
    """Every rule that applies, with its sketch."""
    found = [(rule, rule.sketch(work, machine)) for rule in RULES]
    return tuple((rule, sketch) for rule, sketch in found if sketch is not None)
