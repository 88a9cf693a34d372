"""The runtime as a guest of a process: forks, mapped code, imports, the time and memory that loading takes."""

import contextlib
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bundle_format.digest import Digest
from bundle_format.weights import WeightData, pack_weights
from bundle_format.writer import Variant, write_bundle
from tessera_runtime import Model, RunError, load
from tessera_runtime.cpu import image
from tessera_runtime.cpu.image import CodeImage
from tests.runtime.conftest import ARCH
from tests.runtime.sample import SCALE, SHIFT, sample_variant

X = np.arange(3000, dtype=np.float32).reshape(1000, 3)
ROOT = Path(__file__).parents[2]


def is_right(model: Model) -> bool:
    return bool(np.array_equal(model.run(x=X)["y"], X * SCALE + SHIFT))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.numerics
def test_model_when_process_forks_then_parent_and_child_both_run(bundle: Path, used_before: bool) -> None:
    model = load(bundle, threads=3)
    if used_before:
        assert is_right(model)
    child = os.fork()
    if child == 0:
        os._exit(0 if is_right(model) and is_right(load(bundle, threads=3)) else 1)
    assert is_right(model)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    model.close()


def code_descriptors() -> set[Path]:
    """The open memory files that hold code."""
    found: set[Path] = set()
    for entry in Path("/proc/self/fd").iterdir():
        # The descriptor with which the folder was read is closed by now.
        with contextlib.suppress(FileNotFoundError):
            if "tessera-code" in str(entry.readlink()):
                found.add(entry)
    return found


@pytest.mark.unit
def test_code_when_mapped_then_nobody_can_write_it(library: Path) -> None:
    gc.collect()
    before = code_descriptors()
    code = CodeImage(memoryview(library.read_bytes()))
    (name,) = code_descriptors() - before
    with pytest.raises(PermissionError):
        os.write(int(name.name), b"x")
    with pytest.raises(PermissionError):
        os.truncate(name, 0)
    assert code.describe() == {"abi": 1, "entries": ["main", "step", "spin", "bits", "wait"], "weights": 2}


@pytest.mark.unit
def test_models_when_closed_then_descriptors_and_mappings_are_given_back(bundle: Path) -> None:
    load(bundle, threads=2).close()
    gc.collect()

    def held() -> tuple[int, int]:
        maps = Path("/proc/self/maps").read_text()
        return len(list(Path("/proc/self/fd").iterdir())), maps.count("tessera-code") + maps.count("model.tessera")

    before = held()
    for _ in range(5):
        with load(bundle, threads=2) as model:
            assert is_right(model)
        del model
    gc.collect()
    assert held() == before


@pytest.mark.unit
def test_code_when_there_are_no_memory_files_then_is_mapped_from_a_file_that_is_gone(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError("not supported")

    monkeypatch.setattr(image.os, "memfd_create", refuse)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with load(bundle, threads=2) as model:
        assert list(tmp_path.iterdir()) == []
        assert is_right(model)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(RunError, match="TMPDIR"):
        load(bundle, threads=2)


@pytest.mark.unit
def test_weights_when_loaded_then_are_mapped_and_not_read(library: Path, tmp_path: Path) -> None:
    size = 64 << 20
    variant = sample_variant(library.read_bytes(), arch=ARCH)
    large = WeightData("large", bytes(size), "u8", (size,), "dense", Digest.of(b""))
    weights, layers = pack_weights([large])
    records = (variant.config.weights[0], weights[0])
    write_bundle(tmp_path / "m", [Variant(variant.config._replace(weights=records), [*variant.layers, *layers])])
    before = resident_bytes()
    with load(tmp_path / "m", threads=1):
        assert resident_bytes() - before < size // 8


def resident_bytes() -> int:
    """Memory of this process that is present now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


IMPORTS = """
import sys, numpy
before = set(sys.modules)
import tessera_runtime
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(tops - set(sys.stdlib_module_names)))
print(sorted({"asyncio", "tarfile", "pathlib", "inspect", "subprocess", "zstandard", "tempfile"} & tops))
"""


@pytest.mark.unit
def test_runtime_when_imported_then_brings_only_itself() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    ours, heavy = done.stdout.splitlines()
    assert ours == "['bundle_format', 'tessera_runtime']"
    assert heavy == "[]"


@pytest.mark.bench
def test_runtime_when_imported_and_loaded_in_a_fresh_process_then_takes_milliseconds(
    bundle: Path, tmp_path: Path
) -> None:
    program = (
        "import sys, time, numpy\n"
        "begin = time.perf_counter(); import tessera_runtime; imported = time.perf_counter()\n"
        "tessera_runtime.load(sys.argv[1]); print(imported - begin, time.perf_counter() - imported)"
    )
    command = [sys.executable, "-c", program, str(bundle)]
    # Compiled once, as an installed package is.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    runs = [subprocess.check_output(command, cwd=ROOT, env=environment, text=True) for _ in range(8)]
    imported, loaded = (min(float(run.split()[index]) for run in runs) for index in (0, 1))
    print(f"import {imported * 1e3:.1f} ms, load {loaded * 1e3:.1f} ms")
    assert imported <= 0.040
    assert loaded <= 0.050


@pytest.mark.bench
def test_run_when_the_model_is_tiny_then_python_adds_few_microseconds(bundle: Path) -> None:
    with load(bundle, threads=1) as model:
        feeds = {"x": X[:1].copy()}
        times: list[float] = []
        for _ in range(20):
            begin = time.perf_counter()
            for _ in range(1000):
                model.run(feeds)
            times.append((time.perf_counter() - begin) / 1000)
    print(f"{min(times) * 1e6:.1f} us a call")
    assert min(times) <= 15e-6
