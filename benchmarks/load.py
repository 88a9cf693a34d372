"""What a serving process pays before its first answer: import, load, first run, resident memory.

    python -m benchmarks.load MODEL.tessera

Everything is measured in one fresh process, on inputs of zeros with every symbolic dim at its smallest.
"""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys, time
start = time.perf_counter()
import numpy as np
numpy_done = time.perf_counter()
import tessera_runtime
runtime_done = time.perf_counter()

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

before = resident()
ready = time.perf_counter()
model = tessera_runtime.load(sys.argv[1], threads=1)
loaded = time.perf_counter()
feeds = {i.name: np.zeros([e if isinstance(e, int) else 1 for e in i.shape], i.numpy) for i in model.inputs}
begin = time.perf_counter()
model.run(feeds)
done = time.perf_counter()
print(f"import numpy      {1e3 * (numpy_done - start):8.1f} ms")
print(f"import runtime    {1e3 * (runtime_done - numpy_done):8.1f} ms beyond numpy")
print(f"load              {1e3 * (loaded - ready):8.1f} ms")
print(f"first run         {1e3 * (done - begin):8.1f} ms")
print(f"resident          {before:8.1f} MB before, {resident():.1f} MB after the first run")
"""


def main() -> None:
    """Measure one bundle."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(subprocess.run([sys.executable, "-c", _PROGRAM, sys.argv[1]], check=False).returncode)


if __name__ == "__main__":
    main()
