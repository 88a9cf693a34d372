"""The hand-written variant, compiled, and bundles around it.

Takes a C compiler, which only the tests need: without one, tests that run code are skipped.
Gives: the shared object, a bundle with it, a loaded model.
Invariant: the object has no undefined symbols, like those that Tessera makes.
"""

import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle_format.writer import write_bundle
from tessera_runtime import Model, load
from tessera_runtime.cpu.machine import normal_arch
from tests.runtime.sample import sample_variant

HERE = Path(__file__).parent
HEADER_FOLDER = HERE.parents[1] / "bundle_format"
ARCH = normal_arch(platform.machine())


def compile_c(output: Path, *arguments: str) -> None:
    """Run the C compiler, or skip the test where there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", f"-I{HEADER_FOLDER}", "-o", str(output), *arguments]
    subprocess.run(command, check=True, cwd=HERE)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared object of `model.c` and `pool.c`."""
    path = tmp_path_factory.mktemp("library") / "model.so"
    compile_c(path, "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "model.c", "pool.c")
    return path


@pytest.fixture(scope="session")
def bundle(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the variant for this machine and one that no machine can run."""
    path = tmp_path_factory.mktemp("bundle") / "model.tessera"
    code = library.read_bytes()
    write_bundle(path, [sample_variant(code, "plain", arch=ARCH), sample_variant(code, "wide", ("avx9000",), ARCH)])
    return path


@pytest.fixture
def model(bundle: Path) -> Iterator[Model]:
    """The bundle, loaded with two threads."""
    with load(bundle, threads=2) as loaded:
        yield loaded
