"""The one table of makers by operator.

Takes the families' tables; gives `MAKERS`. Invariant: a name is in one family only, so that seeds cover all evenly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.redrawn.cases import Case, Maker, make
from tests.redrawn.families.borrowed import CASES
from tests.redrawn.families.borrowed import MAKERS as BORROWED
from tests.redrawn.families.chains import CHAINS
from tests.redrawn.families.contraction import MAKERS as CONTRACTION
from tests.redrawn.families.control import CONTROL
from tests.redrawn.families.elementwise import MAKERS as ELEMENTWISE
from tests.redrawn.families.fused import MAKERS as FUSED
from tests.redrawn.families.movement import MAKERS as MOVEMENT
from tests.redrawn.families.newer import CASES as NEWER_CASES
from tests.redrawn.families.newer import MAKERS as NEWER
from tests.redrawn.families.reductions import MAKERS as REDUCTIONS
from tests.redrawn.families.sampling import MAKERS as SAMPLING

FAMILIES: tuple[Mapping[str, Maker], ...] = (
    ELEMENTWISE,
    REDUCTIONS,
    MOVEMENT,
    CONTRACTION,
    SAMPLING,
    BORROWED,
    FUSED,
    NEWER,
)
MAKERS: Mapping[str, Maker] = {name: make for family in FAMILIES for name, make in family.items()}
WHOLE: Mapping[str, Callable[[int], Case]] = {**CASES, **CHAINS, **CONTROL, **NEWER_CASES}
NAMES = sorted([*MAKERS, *WHOLE])


def drawn(seed: int) -> Case:
    """The case of a seed."""
    name = random.Random(f"name {seed}").choice(NAMES)
    return WHOLE[name](seed) if name in WHOLE else make(seed, name, MAKERS[name])
