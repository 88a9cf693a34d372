"""An OpenCL device that runs SPIR-V on this machine's processor, for tests.

Takes a lowered group kernel and numpy arrays; changes the arrays in place as the kernel does. Invariant: no runtime,
no device or a foreign platform is a skip with the reason, never a failure.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tessera_build.backends.spirv.emit import compile_spirv
from tessera_build.ir.core.dims import evaluate
from tessera_build.lower.tile_to_target.simt import GroupKernel

Array = NDArray[np.generic]


@functools.cache
def _context() -> object:
    """A context on the first device of Intel's runtime for processors.

    The wheel's own .icd file names a placeholder; the loader is pointed at one with the library's real path.
    """
    library = Path(sys.prefix) / "lib" / "libintelocl.so"
    if not library.exists():
        pytest.skip(f"no OpenCL runtime at {library}: pip install '.[spirv-test]'")
    folder = Path(tempfile.mkdtemp(prefix="opencl-vendors-"))
    (folder / "intel.icd").write_text(f"{library}\n")
    os.environ["OCL_ICD_VENDORS"] = str(folder)
    import pyopencl  # noqa: PLC0415 - an extra; and its loader reads the variable above when it is first used

    try:
        devices = pyopencl.get_platforms()[0].get_devices()
    except pyopencl.Error as error:
        pytest.skip(f"the OpenCL runtime does not start: {error}")
    return pyopencl.Context(devices[:1])


def run_group_kernel(lowered: GroupKernel, buffers: Sequence[Array], dims: Mapping[str, int]) -> None:
    """Compile, load and run one kernel on `buffers`, which end up holding what it wrote."""
    context = _context()
    import pyopencl  # noqa: PLC0415 - see above

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyopencl warns that the compiler said something, which it always does
        program = pyopencl.Program(context, compile_spirv(lowered.kernel))
        program.build("-cl-fp32-correctly-rounded-divide-sqrt")
    kernel = pyopencl.Kernel(program, lowered.kernel.name)
    queue = pyopencl.CommandQueue(context)
    flags = pyopencl.mem_flags.READ_WRITE | pyopencl.mem_flags.COPY_HOST_PTR
    device = [pyopencl.Buffer(context, flags, hostbuf=buffer) for buffer in buffers]
    names = lowered.kernel.attributes["dims"]
    assert isinstance(names, tuple)
    groups = evaluate(lowered.groups, dims)
    kernel(queue, (groups * lowered.lanes,), (lowered.lanes,), *device, *(np.int64(dims[str(n)]) for n in names))
    for target, source in zip(buffers, device, strict=True):
        pyopencl.enqueue_copy(queue, target, source)
    queue.finish()
