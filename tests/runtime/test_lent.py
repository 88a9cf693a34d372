"""Memory that outputs give back: used again when the last view is gone, and never before."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from tessera_runtime import Model
from tessera_runtime.arrays import address_of
from tessera_runtime.cpu.lent import Shelf
from tests.runtime.sample import SCALE, SHIFT


def _block(size: int) -> np.ndarray:
    return np.empty(size, np.uint8)


def test_shelf_when_an_array_is_gone_then_its_memory_is_lent_again() -> None:
    shelf = Shelf(2)
    assert shelf.take(100) is None
    first = shelf.lend(_block(100))
    address = address_of(first)
    del first
    assert shelf.take(50) is None
    again = shelf.take(100)
    assert again is not None
    assert address_of(again) == address
    assert shelf.take(100) is None


def test_shelf_when_a_view_of_a_view_lives_then_its_memory_stays() -> None:
    shelf = Shelf(2)
    array = np.ndarray((5, 5), np.float32, shelf.lend(_block(128)), 28)
    view = array[1:][:, ::2]
    view[...] = 7
    del array
    gc.collect()
    assert shelf.take(128) is None
    assert (view == 7).all()
    del view
    gc.collect()
    assert shelf.take(128) is not None


def test_shelf_when_more_comes_back_than_it_was_made_for_then_the_oldest_goes() -> None:
    shelf = Shelf(2)
    lent = [shelf.lend(_block(size)) for size in (10, 20, 30)]
    while lent:
        del lent[0]
    gc.collect()
    assert shelf.take(10) is None
    assert [block is not None for block in (shelf.take(30), shelf.take(20))] == [True, True]


def test_shelf_when_many_threads_take_then_no_two_hold_the_same_memory() -> None:
    shelf, wrong = Shelf(4), list[int]()

    def work(number: int) -> None:
        for _ in range(2000):
            mine = shelf.take(64)
            mine = shelf.lend(_block(64)) if mine is None else mine
            mine[...] = number
            if not (mine == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_run_when_large_answers_are_kept_or_dropped_then_each_is_right(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tessera_runtime.entry.WORTH_KEEPING", 1 << 13)
    kept: list[dict[str, np.ndarray]] = []
    for turn in range(12):
        x = np.full((998 + turn % 2, 3), turn, np.float32)
        found = model.run(x=x)
        if turn % 3:
            kept.append({"x": x, "y": found["y"]})
    for pair in kept:
        np.testing.assert_array_equal(pair["y"], pair["x"] * SCALE + SHIFT)
