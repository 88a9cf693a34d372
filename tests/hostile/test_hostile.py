"""Hostile models and bundles: each works or is refused; none crashes, hangs, grows or writes outside its folder."""

from __future__ import annotations

import pytest

from tests.hostile.attack import bad, run

pytestmark = [pytest.mark.errors]


@pytest.mark.parametrize(("kind", "count"), [("onnx", 120), ("bundle", 200)])
def test_file_when_hostile_then_works_or_is_refused(kind: str, count: int) -> None:
    verdicts = run(kind, 0, count)
    assert len(verdicts) == count
    assert not bad(verdicts)
    assert {v.outcome for v in verdicts} == {"worked", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "bundle"])
def test_file_when_hostile_in_ten_thousand_ways_then_works_or_is_refused(kind: str) -> None:
    verdicts = run(kind, 1000, 11_000)
    assert len(verdicts) == 10_000
    assert not bad(verdicts)
