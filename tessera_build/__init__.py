"""Tessera's compiler: ONNX or Tessera models in, proved and hash-addressed bundles out.

    import tessera_build
    result = tessera_build.build("model.onnx", targets=["x86-64-v4", "x86-64-v3"], out="model.tessera")

Takes a model; gives `build` and `export` with their results. Invariant: importing this package imports nothing else:
the language (`tessera`) imports IR from below it, and the driver imports the language through the standard kernels.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tessera_build.driver.build import build
    from tessera_build.driver.export import ExportResult, export
    from tessera_build.driver.result import BuildResult

__all__ = ["BuildResult", "ExportResult", "__version__", "build", "export"]
__version__: Final = "0.1.0"

_HOMES: Final = {
    "build": "tessera_build.driver.build",
    "export": "tessera_build.driver.export",
    "BuildResult": "tessera_build.driver.result",
    "ExportResult": "tessera_build.driver.export",
}


def __getattr__(name: str) -> object:
    """The public names, imported when they are first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
