"""No file over 400 lines, no function over 40."""

import pytest

from tests.architecture.tree import file_sizes, function_sizes, functions_of

FILE_LINES = 400
FUNCTION_LINES = 40


@pytest.mark.unit
def test_files_when_measured_then_none_is_over_400_lines() -> None:
    sizes = file_sizes()
    assert any(size.where.startswith("tessera_build/") for size in sizes)
    assert [size for size in sizes if size.lines > FILE_LINES] == []


@pytest.mark.unit
def test_functions_when_measured_then_none_is_over_40_lines() -> None:
    sizes = function_sizes()
    assert any(size.where.startswith("tessera_build/") for size in sizes)
    assert [size for size in sizes if size.lines > FUNCTION_LINES] == []


@pytest.mark.unit
def test_functions_of_when_given_a_long_method_then_measures_it() -> None:
    body = "\n".join(["        pass"] * 50)
    (size,) = functions_of(f"class A:\n    @property\n    def long(self):\n{body}\n", "a.py")
    assert (size.lines, size.where) == (51, "a.py:3 long")
