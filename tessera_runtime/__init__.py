"""The runtime of Tessera bundles: open, check, map, choose a variant, run.

    import tessera_runtime as rt
    model = rt.load("model.tessera")
    outputs = model.run(x=x)

Takes a bundle; gives a `Model`. Invariant: needs numpy and the standard library (zstandard only to read IR text);
nothing is compiled, planned or optimised while a process serves.
"""

from typing import TYPE_CHECKING

from bundle_format.errors import BundleError, TesseraError
from tessera_runtime.arrays import TensorSpec
from tessera_runtime.entry import EntryPoint
from tessera_runtime.errors import CancelledError, DeadlineError, MachineError, RunError
from tessera_runtime.loader import load
from tessera_runtime.model import Model
from tessera_runtime.state import State

if TYPE_CHECKING:  # see __getattr__
    from tessera_runtime.limits import CancelHandle

__all__ = [
    "BundleError",
    "CancelHandle",
    "CancelledError",
    "DeadlineError",
    "EntryPoint",
    "MachineError",
    "Model",
    "RunError",
    "State",
    "TensorSpec",
    "TesseraError",
    "load",
]


def __getattr__(name: str) -> object:
    """What most processes never use, imported when it is asked for."""
    if name == "CancelHandle":
        from tessera_runtime.limits import CancelHandle  # noqa: PLC0415  only who cancels pays for it

        return CancelHandle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
