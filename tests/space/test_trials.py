"""Records of measured schedules: what a restarted run finds, what it does not believe, and what is concluded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.trials import Job, Records, Trial, calibrate, judgement, line_of, share_of

JOB = Job("m.onnx", "x86-64-v3", "ab", "conv", 3, "{step}\n")
TRIAL = Trial(0, 4, False, "product", "{}\n", {"busy": 1e6}, 1.0, 1e-3, 1.0, None)


def test_records_when_a_run_was_killed_within_a_line_then_the_line_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    first = Records(path)
    for index in range(3):
        first.append(JOB, replace(TRIAL, index=index))
    whole = path.read_bytes()
    for cut in (1, 20, len(whole.splitlines(keepends=True)[-1]) - 1):
        path.write_bytes(whole[:-cut])
        again = Records(path)
        assert [t.index for t in again.of(JOB)] == [0, 1]
        again.append(JOB, replace(TRIAL, index=2))
        assert path.read_bytes() == whole
        assert [t.index for t in Records(path).of(JOB)] == [0, 1, 2]


def test_records_when_the_derived_schedule_or_the_draw_is_another_then_old_ones_do_not_count(tmp_path: Path) -> None:
    records = Records(tmp_path / "trials.jsonl")
    records.append(JOB, TRIAL)
    other = replace(JOB, derived="{other}\n")
    assert records.of(other) == []
    records.append(other, replace(TRIAL, drawn=4, ratio=0.5))
    records.append(other, replace(TRIAL, drawn=9, ratio=0.7))
    assert [t.ratio for t in records.of(other)] == [0.7]
    assert records.jobs() == [other]


def test_share_when_the_best_were_measured_again_then_the_longer_measurement_counts() -> None:
    short = [replace(TRIAL, index=i, ratio=r) for i, r in enumerate((1.0, 2.0, 0.0))]
    assert share_of(short) == 0.5
    assert share_of([*short, replace(TRIAL, index=1, ratio=1.25, longer=True)]) == 0.8
    assert share_of([replace(TRIAL, ratio=0.0, seconds=None, error="crashed")]) is None


@pytest.mark.parametrize(("good", "verdict"), [(9, "90% is reached"), (8, "90% is not reached")])
def test_judgement_when_shares_are_known_then_it_counts_tasks_at_four_fifths(good: int, verdict: str) -> None:
    records = Records(None)
    for number in range(10):
        job = replace(JOB, key=str(number))
        records.append(job, replace(TRIAL, drawn=1, ratio=1.2 if number < good else 1.3))
        assert "conv" in line_of(job, records.of(job))
    assert f"{good} of 10 tasks ({good * 10}%)" in judgement(records)
    assert verdict in judgement(records)


def test_judgement_when_a_task_is_not_drawn_to_the_end_then_it_says_so() -> None:
    records = Records(None)
    records.append(JOB, TRIAL)
    assert "1 of them not drawn to the end" in judgement(records)


def test_calibrate_when_times_are_made_of_features_then_the_coefficients_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    records = Records(path)
    for index in range(60):
        busy, tiles, bytes_ = 1e6 * (1 + index % 7), 1e4 * (index % 5), 1e6 * (index % 3)
        features = {"busy": busy, "tiles": tiles, "l2_bytes": bytes_}
        cycles = busy + 30 * tiles + 0.03 * bytes_
        records.append(JOB, replace(TRIAL, index=index, drawn=60, features=features, seconds=cycles / 4e9))
    found = dict(line.split() for line in calibrate([path]).splitlines()[1:])
    assert float(found["tile"]) == pytest.approx(30, rel=1e-3)
    assert float(found["l2_byte"]) == pytest.approx(0.03, rel=1e-3)
    assert float(found["spill"]) == 0
