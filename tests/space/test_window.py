"""Tiles of windows: along which axes they have an extent, and how many registers of taps they count with."""

from __future__ import annotations

import numpy as np
import pytest

from tessera_build.space.rules.window import WINDOW
from tessera_build.space.workload import Operand, Span, Workload
from tests.lower.execution import AVX512

pytestmark = pytest.mark.unit


def _read(*axes: tuple[str, ...]) -> Operand:
    return Operand(tuple(tuple((name, 1) for name in names) for names in axes), 4)


def _work(domain: str, reduction: str, *reads: Operand) -> Workload:
    spans = tuple(Span(name, 56) for name in domain)
    return Workload("contraction", spans, tuple(Span(name, 3) for name in reduction), reads, (), 0)


PLANES = _work("chw", "rs", _read(("c",), ("h", "r"), ("w", "s")), _read(("c",), ("r",), ("s",)))
CHANNELS_LAST = _work("hwc", "rs", _read(("h", "r"), ("w", "s"), ("c",)), _read(("r",), ("s",), ("c",)))
DISTANCES = _work("ij", "k", _read(("i",), ("k",)), _read(("j",), ("k",)))


@pytest.mark.parametrize(
    ("work", "tiled"),
    [(PLANES, {"tileh"}), (CHANNELS_LAST, {"tileh", "tilew"}), (DISTANCES, {"tilei"})],
    ids=["channels first", "channels last", "distances"],
)
def test_tiles_when_neighbours_share_no_read_then_have_no_extent_there(work: Workload, tiled: set[str]) -> None:
    sketch = WINDOW.sketch(work, AVX512)
    assert sketch is not None
    assert {d.name for d in sketch.decisions if d.name.startswith("tile")} == tiled


def test_registers_when_taps_serve_a_whole_tile_then_count_beside_it() -> None:
    held = {"columns": np.full(14, 16), "unroll": np.ones(14, np.int64)}
    rows = np.arange(1, 15)
    assert WINDOW.legal(PLANES, AVX512, {**held, "tileh": rows}).tolist() == (rows <= 9).tolist()
    assert WINDOW.legal(CHANNELS_LAST, AVX512, {**held, "tileh": np.ones_like(rows), "tilew": rows}).all()
    assert WINDOW.legal(DISTANCES, AVX512, {**held, "tilei": rows}).all()  # each row has numbers of its own
