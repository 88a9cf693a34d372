"""Runs one SPIR-V kernel on this machine's processor through OpenCL; a process of its own.

Takes a folder with kernel.spv, launch.json (name, groups, lanes, dims, buffers) and each buffer's bytes in before0,
before1, ...; leaves after0, after1, ..., or in no_device.txt why there is no runtime. Invariant: a kernel that faults,
or crashes the runtime's compiler, ends this process and not the tests'.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pyopencl


def main(folder: Path) -> None:
    """Run what lies in `folder`."""
    try:
        context = pyopencl.Context(pyopencl.get_platforms()[0].get_devices()[:1])
    except pyopencl.Error as error:
        (folder / "no_device.txt").write_text(f"the OpenCL runtime does not start: {error}")
        return
    launch = json.loads((folder / "launch.json").read_text())
    buffers = [np.fromfile(folder / f"before{i}", np.uint8) for i in range(launch["buffers"])]
    program = pyopencl.Program(context, (folder / "kernel.spv").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyopencl warns that the compiler said something, which it always does
        program.build("-cl-fp32-correctly-rounded-divide-sqrt")
    queue = pyopencl.CommandQueue(context)
    flags = pyopencl.mem_flags.READ_WRITE | pyopencl.mem_flags.COPY_HOST_PTR
    device = [pyopencl.Buffer(context, flags, hostbuf=buffer) for buffer in buffers]
    kernel = pyopencl.Kernel(program, launch["name"])
    lanes = launch["lanes"]
    kernel(queue, (launch["groups"] * lanes,), (lanes,), *device, *(np.int64(dim) for dim in launch["dims"]))
    for target, source in zip(buffers, device, strict=True):
        pyopencl.enqueue_copy(queue, target, source)
    queue.finish()
    for i, buffer in enumerate(buffers):
        buffer.tofile(folder / f"after{i}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
