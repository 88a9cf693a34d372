"""One bundle of the repository's own network, which all tests of whole programs share.

Takes: nothing. Gives: the path of the bundle, for this machine's own level of CPU.
Invariant: built through the public door, with its proof.
"""

from pathlib import Path

import pytest

import tessera_build
from tests.models.bundles import DIGITS


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, for this machine and for the oldest that there is."""
    path = tmp_path_factory.mktemp("system") / "digits.tessera"
    return tessera_build.build(DIGITS / "digits.onnx", ["native", "x86-64-v2"], path, cache=False).path
