"""Same inputs, same bytes: two builds that differ in everything but what was asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle_format.digest import Digest
from bundle_format.reader import open_bundle
from tests.architecture.tree import ROOT
from tests.driver.models import digits

BUILD = """
import json, sys, tessera_build
result = tessera_build.build(sys.argv[1], ["x86-64-v3", "x86-64-v4"], sys.argv[2], workers=int(sys.argv[3]), cache=None)
print(json.dumps(str(result.digest)))
"""
SETTINGS = (
    {"PYTHONHASHSEED": "1", "LC_ALL": "C", "OPENBLAS_CORETYPE": "Haswell", "TZ": "UTC"},
    {
        "PYTHONHASHSEED": "4242",
        "LC_ALL": "C.UTF-8",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OPENBLAS_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2 FMA3",
        "TZ": "Asia/Tokyo",
    },
)


def build_in(folder: Path, settings: dict[str, str], workers: int) -> Path:
    """A build in a process, a folder and an environment of its own."""
    folder.mkdir()
    model = folder / f"model_{workers}.onnx"
    model.write_bytes(digits().read_bytes())
    command = [sys.executable, "-W", "ignore", "-c", BUILD, model.name, "out.tessera", str(workers)]
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open_bundle(folder / "out.tessera", expected=Digest.parse(json.loads(done.stdout))):
        return folder / "out.tessera"


def identified(path: Path) -> dict[str, bytes]:
    """Every blob that the identity covers."""
    with open_bundle(path) as bundle:
        bundle.verify_full()
        attached = {blob.digest for item in bundle.attachments for blob in (item.manifest, *item.blobs)}
        return {
            str(blob.digest): bytes(bundle.read(blob)) for blob in bundle.reachable() if blob.digest not in attached
        }


@pytest.mark.bundle
def test_builds_when_all_but_the_request_differs_then_have_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        build_in(tmp_path / f"place{index}", settings, index + 1) for index, settings in enumerate(SETTINGS)
    )
    assert identified(first) == identified(second)
    with open_bundle(first) as one, open_bundle(second) as other:
        assert one.identity == other.identity
