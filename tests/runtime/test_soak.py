"""The soak of benchmarks/soak.py: short on the hand-written variant, long on a built model of dynamic batch."""

from pathlib import Path

import pytest

import tessera_build
from benchmarks.soak import Held, Soak, soak_cycles, soak_runs, soak_server
from tests.models.bundles import DIGITS


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("soak") / "digits.tessera"
    return tessera_build.build(DIGITS / "digits.onnx", ["native"], path, verify=False, workers=1).path


@pytest.mark.numerics
def test_runs_when_many_threads_make_thousands_then_answers_and_memory_stay(bundle: Path) -> None:
    found = soak_runs(bundle, 9000, 8)
    assert found.sound, found


@pytest.mark.unit
def test_loads_when_closed_again_and_again_then_nothing_is_left(bundle: Path) -> None:
    found = soak_cycles(bundle, 100)
    assert found.sound, found


@pytest.mark.unit
def test_server_when_asked_for_long_then_its_workers_stay(bundle: Path) -> None:
    for found in soak_server(bundle, 800):
        assert found.sound, found


@pytest.mark.unit
@pytest.mark.parametrize(
    "changed",
    [
        {"resident_bytes": 100 << 20},
        {"descriptors": 9},
        {"threads": 5},
        {"mappings": 400},
    ],
)
def test_soak_when_something_grew_then_is_not_sound(changed: dict[str, int]) -> None:
    facts = {"resident_bytes": 50 << 20, "descriptors": 8, "threads": 4, "mappings": 300}
    before = Held(**facts)
    assert Soak("s", 1, 1.0, 0, before, before).sound
    assert not Soak("s", 1, 1.0, 1, before, before).sound
    assert not Soak("s", 1, 1.0, 0, before, Held(**(facts | changed))).sound


@pytest.mark.slow
def test_soak_when_long_then_nothing_changes(digits: Path) -> None:
    reports = [soak_runs(digits, 200_000, 8), soak_cycles(digits, 1000), *soak_server(digits, 20_000)]
    assert [report for report in reports if not report.sound] == []
