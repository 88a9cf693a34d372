"""The runtime alone: its wheel in a clean environment, with numpy and zstandard and nothing else of ours."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.sample import SCALE, SHIFT

ROOT = Path(__file__).parents[2]
MAX_WHEEL_BYTES = 300_000

PROGRAM = """
import sys
before = set(sys.modules)
import numpy
import tessera_runtime
with tessera_runtime.load(sys.argv[1]) as model:
    y = model.run(x=numpy.load(sys.argv[2]))["y"]
numpy.save(sys.argv[3], y)
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(" ".join(sorted(top for top in tops - set(sys.stdlib_module_names) if not top.startswith("_"))))
print(tessera_runtime.__file__)
"""


@pytest.mark.slow
def test_runtime_wheel_when_installed_alone_then_runs_a_bundle(bundle: Path, tmp_path: Path) -> None:
    wheel_command = ["wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT / "packaging" / "runtime")]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *wheel_command], check=True)
    (wheel,) = tmp_path.glob("tessera_runtime-*.whl")
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    venv.create(tmp_path / "clean", with_pip=True)
    python = str(tmp_path / "clean" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "--quiet", "install", str(wheel)], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    installed = {line.partition("==")[0] for line in listed.stdout.splitlines()}
    assert installed - {"pip", "setuptools"} == {"numpy", "tessera-runtime", "zstandard"}

    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = [str(bundle), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run([python, "-I", "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    imported, place = done.stdout.splitlines()
    assert imported == "bundle_format numpy tessera_runtime"
    assert place.startswith(str(tmp_path / "clean"))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x * SCALE + SHIFT)
