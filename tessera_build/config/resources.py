"""Where the files that come with Tessera lie: standard settings and the quickstart's model.

Takes: a path relative to the top of the tree, such as `configs/targets`.
Gives: the path on disk, whether Tessera runs from its tree or from an installed wheel.
Invariant: the tree has no `tessera_build/_data`, a wheel has nothing else; so exactly one place can answer.
"""

from pathlib import Path

from tessera_build.config.errors import HostError

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "_data"


def resource(relative: str) -> Path:
    """The file or folder named `relative`; `HostError` when the installation lacks it."""
    root = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
    path = root / relative
    if not path.exists():
        raise HostError(
            "INSTALLATION_INCOMPLETE",
            f"Tessera's own file {relative} is missing",
            where=str(path),
            hint="install Tessera again: pip install --force-reinstall tessera-build",
        )
    return path
