"""The runtime of Tessera bundles: open, check, map, choose a variant, run.

    import tessera_runtime as rt
    model = rt.load("model.tessera")
    outputs = model.run(x=x)

Takes a bundle; gives a `Model`. Invariant: needs numpy and the standard library (zstandard only to read IR text);
nothing is compiled, planned or optimised while a process serves.
"""

from bundle_format.errors import BundleError, TesseraError
from tessera_runtime.arrays import TensorSpec
from tessera_runtime.entry import EntryPoint
from tessera_runtime.errors import CancelledError, DeadlineError, MachineError, RunError
from tessera_runtime.limits import CancelHandle
from tessera_runtime.loader import load
from tessera_runtime.model import Model
from tessera_runtime.state import State

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
