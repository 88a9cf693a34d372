"""The two wheels, made from this tree: who owns what, what each needs, and how big the runtime is."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

RUNTIME_BYTES = 300_000


def build_wheel(project: Path, folder: Path, **environment: str) -> zipfile.ZipFile:
    """The wheel of one project, built by the back end alone (pip would fetch it from an index)."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    clean = {name: value for name, value in os.environ.items() if name != "TESSERA_RELEASE"}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=clean | environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def metadata(wheel: zipfile.ZipFile) -> dict[str, list[str]]:
    """The fields of a wheel's METADATA, each with all its values."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    message = Parser().parsestr(wheel.read(name).decode())
    return {field: message.get_all(field, []) for field in ("Name", "Version", "Requires-Dist")}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build_wheel(ROOT, tmp_path_factory.mktemp("compiler"), TESSERA_RELEASE="1")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build_wheel(ROOT / "packaging/runtime", tmp_path_factory.mktemp("runtime"))


@pytest.mark.unit
def test_wheels_when_built_then_no_file_is_in_both(compiler: zipfile.ZipFile, runtime: zipfile.ZipFile) -> None:
    assert not set(compiler.namelist()) & set(runtime.namelist())
    tops = [
        {name.split("/")[0] for name in wheel.namelist() if ".dist-info" not in name} for wheel in (compiler, runtime)
    ]
    assert tops == [{"tessera", "tessera_build"}, {"bundle_format", "tessera_runtime"}]


@pytest.mark.unit
def test_release_wheels_when_built_then_the_compiler_needs_the_runtime_of_its_version(
    compiler: zipfile.ZipFile, runtime: zipfile.ZipFile
) -> None:
    (version,) = metadata(runtime)["Version"]
    assert metadata(compiler)["Version"] == [version]
    assert f"tessera-runtime=={version}" in metadata(compiler)["Requires-Dist"]


@pytest.mark.unit
def test_local_wheel_when_built_then_takes_the_runtime_from_the_same_tree(tmp_path: Path) -> None:
    wheel = build_wheel(ROOT, tmp_path)
    assert f"tessera-runtime @ {(ROOT / 'packaging/runtime').as_uri()}" in metadata(wheel)["Requires-Dist"]


@pytest.mark.unit
def test_runtime_wheel_when_built_then_is_small_and_needs_two_packages(runtime: zipfile.ZipFile) -> None:
    assert Path(runtime.filename or "").stat().st_size < RUNTIME_BYTES
    assert {need.split(">")[0] for need in metadata(runtime)["Requires-Dist"]} == {"numpy", "zstandard"}


@pytest.mark.unit
def test_compiler_wheel_when_built_then_holds_the_settings_and_the_quickstart(compiler: zipfile.ZipFile) -> None:
    held = set(compiler.namelist())
    settings = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    quickstart = {"examples/digits/digits.onnx", "examples/digits/digits_test.npz"}
    assert {f"tessera_build/_data/{name}" for name in settings | quickstart} <= held
