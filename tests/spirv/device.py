"""Runs one SPIR-V kernel on this machine's processor through OpenCL; a process of its own.

Takes a folder with kernel.spv, launch.json (name, groups, lanes, dims, buffers) and each buffer's bytes in before0,
before1, ...; leaves after0, after1, ... Exits with `NO_DEVICE` and a reason when there is no runtime. Invariant: a
kernel that faults, or crashes the runtime's compiler, ends this process and not the tests'.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Final

import numpy as np

NO_DEVICE: Final = 77


def find_library() -> Path | None:
    """Intel's OpenCL runtime for processors, where its wheel puts it."""
    library = Path(sys.prefix) / "lib" / "libintelocl.so"
    return library if library.exists() else None


def main(folder: Path) -> int:
    """Run what lies in `folder`."""
    library = find_library()
    if library is None:
        print(f"no OpenCL runtime in {sys.prefix}/lib: pip install '.[spirv-test]'")
        return NO_DEVICE
    # The wheel's own .icd file names a placeholder; the loader reads this variable when it is first used.
    (folder / "intel.icd").write_text(f"{library}\n")
    os.environ["OCL_ICD_VENDORS"] = str(folder)
    import pyopencl  # noqa: PLC0415 - after the variable above

    try:
        context = pyopencl.Context(pyopencl.get_platforms()[0].get_devices()[:1])
    except pyopencl.Error as error:
        print(f"the OpenCL runtime does not start: {error}")
        return NO_DEVICE
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
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
