"""What tests of whole builds share: one cache of kernels for the session, and a small bundle.

Takes nothing; gives paths. Invariant: the user's own cache is neither read nor written.
"""

from pathlib import Path

import pytest

import tessera_build
from tests.driver.models import mlp


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels of this session."""
    return tmp_path_factory.getbasetemp() / "kernels"


@pytest.fixture(scope="session")
def mlp_bundle(tmp_path_factory: pytest.TempPathFactory, kernel_cache: Path) -> Path:
    """The small network, built and proved; tests must not change it."""
    path = tmp_path_factory.mktemp("bundle") / "mlp.tessera"
    tessera_build.build(mlp(), ["x86-64-v3", "x86-64-v2"], path, cache=kernel_cache)
    return path
