"""A serving process: a clean environment with the runtime's wheel, numpy and zstandard, and nothing that compiles."""

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import tessera_runtime
from tests.models.bundles import digits_images

ROOT = Path(__file__).parents[2]

# Prints which parts of the compiler can be imported, and how many different answers eight callers of two models got.
PROGRAM = """
import importlib.util, sys
from concurrent.futures import ThreadPoolExecutor
import numpy
import tessera_runtime
bundle, images, answers = sys.argv[1], numpy.load(sys.argv[2]), sys.argv[3]
compiler = ("click", "llvmlite", "onnx", "onnxruntime", "tessera", "tessera_build", "yaml")
print([name for name in compiler if importlib.util.find_spec(name) is not None])
models = [tessera_runtime.load(bundle, threads=threads) for threads in (1, 2)]
with ThreadPoolExecutor(8) as callers:
    runs = [callers.submit(model.run, {"image": images}) for model in models for _ in range(16)]
    found = [run.result()["probabilities"] for run in runs]
print(len({answer.tobytes() for answer in found}))
print(models[0].target)
numpy.save(answers, found[0])
"""


@pytest.mark.slow
def test_runtime_when_installed_alone_then_serves_a_built_bundle_with_equal_bytes(
    digits_bundle: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "clean", with_pip=True)
    python = str(tmp_path / "clean" / "bin" / "python")
    install = ["install", "--quiet", "--disable-pip-version-check", str(ROOT / "packaging" / "runtime")]
    subprocess.run([python, "-m", "pip", *install], check=True)
    images = digits_images(29)
    np.save(tmp_path / "images.npy", images)
    arguments = [str(digits_bundle), str(tmp_path / "images.npy"), str(tmp_path / "answers.npy")]
    done = subprocess.run([python, "-I", "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    with tessera_runtime.load(digits_bundle, threads=1) as model:
        assert done.stdout.splitlines() == ["[]", "1", model.target]
        expected = model.run(image=images)["probabilities"]
    assert np.load(tmp_path / "answers.npy").tobytes() == expected.tobytes()


@pytest.mark.numerics
def test_process_when_it_serves_then_no_compiler_is_imported(digits_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", digits_images(5))
    arguments = [str(digits_bundle), str(tmp_path / "images.npy"), str(tmp_path / "answers.npy")]
    watch = "print(sorted({'llvmlite', 'onnx', 'onnxruntime', 'tessera', 'tessera_build', 'yaml'} & set(sys.modules)))"
    command = [sys.executable, "-c", PROGRAM + watch, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    _, different, _, imported = done.stdout.splitlines()
    assert (different, imported) == ("1", "[]")
