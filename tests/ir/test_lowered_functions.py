"""Real functions of every level: what lowering makes is legal, and its text comes back equal.

Takes the networks of tests/lower. Invariant: the tables of what is legal and the bridges agree.
"""

import numpy as np
import pytest

from tessera_build.ir.core.hashing import hash_function
from tessera_build.ir.graph import spec as graph_spec
from tessera_build.ir.graph import text as graph_text
from tessera_build.ir.schedule import spec as schedule_spec
from tessera_build.ir.schedule import text as schedule_text
from tessera_build.ir.target import spec as target_spec
from tessera_build.ir.target import text as target_text
from tessera_build.ir.tile import spec as tile_spec
from tessera_build.ir.tile import text as tile_text
from tessera_build.lower.program.assemble import lower_module
from tests.lower.execution import AVX512
from tests.lower.graphs import GRAPHS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", GRAPHS)
def test_network_when_lowered_then_every_level_is_legal_and_prints(name: str) -> None:
    module = GRAPHS[name](np.random.default_rng(7))
    graph_spec.verify_module(module)
    text = graph_text.print_module(module)
    assert graph_text.print_module(graph_text.parse_module(text, module.constants)) == text
    lowered = lower_module(module, AVX512)
    target_spec.verify_variant(lowered.variant)
    text = target_text.print_variant(lowered.variant)
    assert target_text.print_variant(target_text.parse_variant(text)) == text
    for record in lowered.launches[0]:
        schedule_spec.verify(record.schedule_function)
        tile_spec.verify(record.tile_function)
        for level, function in ((schedule_text, record.schedule_function), (tile_text, record.tile_function)):
            again = level.parse_function(level.print_function(function))
            assert hash_function(again) == hash_function(function)
