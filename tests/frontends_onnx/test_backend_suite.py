"""Every node case of the onnx package is right or refused; none is wrong, with static dims or with dynamic ones."""

from __future__ import annotations

import pytest

from tests.frontends_onnx.backend_suite import collect, judge

pytestmark = pytest.mark.numerics

# Counted with onnx 1.23.2: 1004 of 1884 static and 920 dynamic; older packages have fewer cases.
LEAST_RIGHT = {False: 800, True: 700}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True])
def test_node_cases_when_imported_and_run_then_none_is_wrong(dynamic: bool) -> None:
    verdicts = [judge(case, dynamic=dynamic) for case in collect().values() if judge(case).outcome != "unsupported"]
    wrong = [f"{v.name}: {v.reason}" for v in verdicts if v.outcome == "wrong"]
    assert not wrong, "\n".join(wrong)
    assert sum(v.outcome == "right" for v in verdicts) >= LEAST_RIGHT[dynamic]
