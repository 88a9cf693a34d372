"""What memory there is, read from files that the tests write, and runs that need more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tessera_build
import tessera_runtime
from tessera_runtime import RunError
from tessera_runtime.cpu import available
from tessera_runtime.cpu.available import available_bytes, shortage
from tests.runtime.test_machine import put

GIB = 1 << 30
MEMINFO = f"MemTotal: {64 << 20} kB\nMemAvailable: {16 << 20} kB\nSwapFree: {1 << 20} kB\n"
GROUP = {"sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n", "sys/fs/cgroup/a/memory.stat": f"inactive_file {GIB}\n"}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 17 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n", **GROUP}, 2 * GIB),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n", **GROUP}, None),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": f"{GIB}\n", **GROUP}, 0),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{5 * GIB}",
                "sys/fs/cgroup/memory/x/memory.usage_in_bytes": f"{GIB}",
            },
            4 * GIB,
        ),
    ],
)
def test_available_when_machine_and_groups_bound_it_then_is_the_least(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        put(tmp_path, name, text)
    assert available_bytes(str(tmp_path)) == expected
    assert shortage(20 * GIB, str(tmp_path)) == expected
    assert shortage(1 << 20, str(tmp_path)) is None


@pytest.mark.unit
def test_run_when_it_needs_more_memory_than_there_is_then_is_refused_and_the_model_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux would promise the pages, and end the process when they are written."""
    weights = {"wide": np.ones((1, 1 << 16), np.float32), "tall": np.full((1 << 16, 1), 2.0**-16, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["h"]),
        helper.make_node("Softmax", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "tall"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("x", "y")]
    initial = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    tessera_build.build(model, ["native"], tmp_path / "m", verify=False, workers=1)
    with tessera_runtime.load(tmp_path / "m", threads=1) as loaded:
        monkeypatch.setattr(available, "available_bytes", lambda _: GIB)
        with pytest.raises(RunError, match="not enough memory") as caught:
            loaded.run({"x": np.ones((1 << 14, 1), np.float32)})
        assert caught.value.code == "OUT_OF_MEMORY"
        y = loaded.run({"x": np.ones((2, 1), np.float32)})["y"]
        np.testing.assert_allclose(y.astype(np.float64), 2.0**-16, rtol=1e-5)
