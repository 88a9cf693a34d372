"""Compiling many units: same objects whatever the workers, failures collected, LLVM's deaths survived."""

from pathlib import Path

import pytest

from tessera_build.backends.llvm.cache import ObjectCache
from tessera_build.backends.llvm.compile_pool import Unit, compile_all
from tessera_build.backends.llvm.errors import CompileError
from tests.backend_llvm.harness import X86_64

UNITS = [Unit(f"unit {number}", f"define i32 @f{number}() {{ ret i32 {number} }}") for number in range(6)]
# An assembler error in a module's own assembly ends the process that compiles it.
FATAL = Unit("fatal unit", 'module asm "no_such_instruction %eax"')
WRONG = Unit("wrong unit", "define i32 @f( {")


@pytest.mark.parametrize("workers", [None, 2, 3])
def test_compile_all_when_the_number_of_workers_changes_then_the_objects_do_not(workers: int | None) -> None:
    alone = compile_all(UNITS, X86_64, workers=1)
    assert compile_all(UNITS, X86_64, workers=workers).objects == alone.objects
    assert len(set(alone.objects)) == len(UNITS)


def test_compile_all_when_units_are_equal_then_each_is_compiled_once() -> None:
    units = [UNITS[0], Unit("again", UNITS[0].ir_text), UNITS[1]]
    result = compile_all(units, X86_64, workers=1)
    assert result.objects[0] == result.objects[1]
    assert [record.source for record in result.statistics] == ["compiled", "duplicate", "compiled"]
    assert result.statistics[0].seconds > 0
    assert result.statistics[1].seconds == 0


def test_compile_all_when_the_cache_has_units_then_only_the_others_are_compiled(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path)
    first = compile_all(UNITS[:2], X86_64, cache=cache)
    second = compile_all(UNITS[:3], X86_64, cache=cache)
    assert second.objects[:2] == first.objects
    assert [record.source for record in second.statistics] == ["cache", "cache", "compiled"]
    damaged = next(path for path in tmp_path.glob("??/*"))
    damaged.write_bytes(b"nonsense")
    assert compile_all(UNITS[:3], X86_64, cache=cache).objects == second.objects


def test_compile_all_when_watched_then_progress_counts_each_unit() -> None:
    seen: list[tuple[int, int, str]] = []
    compile_all(UNITS, X86_64, workers=2, progress=lambda done, total, name: seen.append((done, total, name)))
    assert [(done, total) for done, total, _ in seen] == [(number, 6) for number in range(1, 7)]
    assert {name for _, _, name in seen} == {unit.name for unit in UNITS}


def test_compile_all_when_llvm_ends_its_process_then_the_error_names_the_unit_and_quotes_it() -> None:
    with pytest.raises(CompileError) as caught:
        compile_all([*UNITS, FATAL], X86_64, workers=2)
    assert caught.value.where == "fatal unit"
    assert "no_such_instruction" in (caught.value.found or "")


def test_compile_all_when_several_units_fail_then_all_are_listed_once() -> None:
    with pytest.raises(CompileError) as caught:
        compile_all([FATAL, UNITS[0], WRONG, UNITS[1]], X86_64, workers=2)
    message = caught.value.diagnostics()
    assert "2 units" in message
    assert "fatal unit" in message
    assert "wrong unit" in message


def test_compile_all_when_a_unit_fails_in_this_process_then_the_error_names_it() -> None:
    with pytest.raises(CompileError) as caught:
        compile_all([UNITS[0], WRONG], X86_64)
    assert caught.value.where == "wrong unit"


def test_compile_all_when_given_nothing_then_returns_nothing() -> None:
    assert compile_all([], X86_64).objects == ()
