"""Settings that every test shares.

Takes: the markers of pyproject.toml. Gives: skips, with the reason and the remedy, for tests whose optional
packages are not installed; a Hypothesis profile without a deadline, because the machines of CI are shared.
Invariant: nothing here changes what a test computes.
"""

from importlib.util import find_spec

import pytest
from hypothesis import settings

# marker -> (module that must be importable, extra of tessera-build that brings it)
OPTIONAL_PACKAGES = {
    "spirv": ("pyopencl", "spirv-test"),
    "cuda": ("nvidia.cuda_nvcc", "ptxas"),
}

settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose optional package is absent, naming the extra that would bring it."""
    for marker, (module, extra) in OPTIONAL_PACKAGES.items():
        if _importable(module):
            continue
        skip = pytest.mark.skip(reason=f"needs pip install '.[{extra}]'")
        for item in items:
            if item.get_closest_marker(marker) is not None:
                item.add_marker(skip)


def _importable(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is absent too
        return False
