"""Mapped arrays keep what they hold when their pages are dropped."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from tessera_build.ir.core.pages import drop_pages


def _resident_kib(address: int) -> int:
    """Resident memory of the mapping that holds an address."""
    found = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            start, stop = (int(part, 16) for part in words[0].split("-"))
            found = start <= address < stop
        elif found and words[0] == "Rss:":
            return int(words[1])
    raise AssertionError("no mapping holds the address")


@pytest.mark.unit
def test_mapped_array_when_its_pages_are_dropped_then_takes_no_memory_and_reads_the_same(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random(1 << 20, np.float32)
    (tmp_path / "w.bin").write_bytes(data.tobytes())
    with (tmp_path / "w.bin").open("rb") as file:
        array = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.float32).reshape(1024, 1024)
    address = array.__array_interface__["data"][0]
    total = array.sum()
    assert _resident_kib(address) >= 4096
    drop_pages(array)
    assert _resident_kib(address) == 0
    assert array.sum() == total


@pytest.mark.unit
def test_own_array_when_asked_to_drop_its_pages_then_is_left_alone() -> None:
    array = np.arange(1000)
    drop_pages(array[10:])
    np.testing.assert_array_equal(array, np.arange(1000))
