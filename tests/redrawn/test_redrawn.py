"""Re-drawn models of every operator: what is compiled answers as onnxruntime and onnx's reference do, or is refused."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.redrawn.cases import Case
from tests.redrawn.judge import Verdict, bad, fits, judge, run
from tests.redrawn.oracles import Answers, beyond_rounding, by_doubles, farther
from tests.redrawn.table import drawn

pytestmark = pytest.mark.numerics


def _check(verdicts: list[Verdict], count: int) -> None:
    assert len(verdicts) == count
    assert not bad(verdicts)
    outcomes = collections.Counter(v.outcome for v in verdicts)
    assert outcomes["right"] >= 0.86 * count
    assert outcomes["refused"] <= 0.05 * count


def test_operators_when_redrawn_then_answer_as_the_oracles() -> None:
    _check(run(0, 150), 150)


@pytest.mark.slow
def test_operators_when_redrawn_in_ten_thousand_ways_then_answer_as_the_oracles() -> None:
    _check(run(0, 10_000), 10_000)


def test_answer_when_only_rounding_is_left_then_the_closer_one_is_not_wrong(tmp_path: Path) -> None:
    # A mean of six equal numbers less one of them: both oracles say -7.5e-9, doubles say 0.
    verdict = judge(209434, tmp_path)
    assert (verdict.outcome, verdict.oracle) == ("closer", "both")


def test_answer_when_inputs_rounded_once_move_it_as_far_then_is_not_wrong(tmp_path: Path) -> None:
    # A sum of 65504, small numbers and 3e38 less 3e38: both oracles say 0, one order of adding says 65501.
    verdict = judge(229286, tmp_path)
    assert (verdict.outcome, verdict.oracle) == ("closer", "both")


def test_answer_when_no_rounding_explains_it_then_stays_wrong() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 11]>
        g (float[2, 3] x) => (float[2, 1] y) { y = ReduceSum <axes = [1]> (x) }"""
    )
    case = Case("sum", model, [{"x": np.array([[3e38, 2.0, -3e38], [1.0, 2.0, 3.0]], np.float32)}])
    exact = by_doubles(case)
    assert exact is not None

    def beyond(*sums: float) -> bool:
        oracle: Answers = [[np.array([[0.0], [6.0]], np.float32)]]
        return beyond_rounding(case, [[np.array(sums, np.float32).reshape(2, 1)]], oracle, exact)

    assert not beyond(2.0, 6.0)
    assert beyond(2.0, 6.01)
    assert beyond(np.nan, 6.0)


def test_answer_when_the_fused_operator_cancels_then_doubles_of_its_definition_judge(tmp_path: Path) -> None:
    # FastGelu near -5: 1 + tanh keeps two bits of a float32.
    assert judge(229760, tmp_path).outcome == "closer"


def test_answer_when_farther_from_doubles_than_the_oracle_then_stays_wrong() -> None:
    exact, oracle = np.array([1.0, 2.0]), np.array([1.0, 2.0001], np.float32)
    assert not farther([[np.array([1.0, 2.00005], np.float32)]], [[oracle]], [[exact]])
    assert farther([[np.array([1.0, 2.001], np.float32)]], [[oracle]], [[exact]])
    assert farther([[np.array([np.nan, 2.0], np.float32)]], [[oracle]], [[exact]])
    assert farther([[np.array([1.0, 2.0, 3.0], np.float32)]], [[oracle]], [[exact]])


def test_seed_when_drawn_twice_then_gives_one_model() -> None:
    for seed in range(40):
        first, second = drawn(seed), drawn(seed)
        assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)


def test_oracle_when_its_answer_has_another_shape_than_onnx_infers_then_has_no_voice_alone() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 11]>
        g (int32[N, 4, 0] x) => (int32[A, B, C] y) { y = ReduceLogSum <axes = [0, -2]> (x) }"""
    )
    assert fits(model, [[np.zeros((1, 1, 0), np.int32)]])
    assert not fits(model, [[np.zeros((1, 4, 0), np.int32)]])
    assert not fits(model, [[np.zeros((1, 1, 0), np.int64)]])
