"""An OpenCL device that runs SPIR-V on this machine's processor, for tests.

Takes a lowered group kernel and numpy arrays; changes the arrays in place as the kernel does. Invariant: no runtime,
no device or a foreign platform is a skip with the reason, never a failure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.backends.spirv.emit import compile_spirv
from tessera_build.ir.core.dims import evaluate
from tessera_build.lower.tile_to_target.simt import GroupKernel

Array = NDArray[np.generic]
_PROGRAM = Path(__file__).with_name("device.py")
_TIMEOUT_S = 120


def run_group_kernel(lowered: GroupKernel, buffers: Sequence[Array], dims: Mapping[str, int]) -> None:
    """Compile, load and run one kernel on `buffers`, which end up holding what it wrote."""
    names = lowered.kernel.attributes["dims"]
    assert isinstance(names, tuple)
    launch = {
        "name": lowered.kernel.name,
        "groups": evaluate(lowered.groups, dims),
        "lanes": lowered.lanes,
        "buffers": len(buffers),
        "dims": [dims[str(name)] for name in names],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kernel.spv").write_bytes(compile_spirv(lowered.kernel))
        (folder / "launch.json").write_text(json.dumps(launch))
        for i, buffer in enumerate(buffers):
            _bytes(buffer).tofile(folder / f"before{i}")
        # The wheel's own .icd file names a placeholder; the loader reads this variable when it is first used.
        (folder / "intel.icd").write_text(f"{_library()}\n")
        environment = {**os.environ, "OCL_ICD_VENDORS": str(folder)}
        command = [sys.executable, str(_PROGRAM), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        absent = folder / "no_device.txt"
        if absent.exists():
            pytest.skip(absent.read_text())
        for i, buffer in enumerate(buffers):
            _bytes(buffer)[:] = np.fromfile(folder / f"after{i}", np.uint8)


def _library() -> Path:
    """Intel's OpenCL runtime for processors, where its wheel puts it; without it or its Python door, a skip."""
    pytest.importorskip("pyopencl", reason="no OpenCL: pip install '.[spirv-test]'")
    library = Path(sys.prefix) / "lib" / "libintelocl.so"
    if not library.exists():
        pytest.skip(f"no OpenCL runtime in {sys.prefix}/lib: pip install '.[spirv-test]'")
    return library


def _bytes(buffer: Array) -> NDArray[np.uint8]:
    """The buffer's memory, shared."""
    return buffer.reshape(-1).view(np.uint8)
