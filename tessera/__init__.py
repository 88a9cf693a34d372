"""The language a model author imports: `from tessera import op, graph, Tensor, f32`; kernels by `tessera.kernel`.

Takes nothing; gives the names below when they are first asked for. Invariant: importing this package imports nothing
else, so the kernels of the compiler do not pay for the language of models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tessera import graph, op
    from tessera.graph.training import autodiff, jit
    from tessera.model.numeric import (
        accum,
        bf16,
        boolean,
        f8e4m3,
        f8e5m2,
        f16,
        f32,
        f64,
        i4,
        i8,
        i16,
        i32,
        i64,
        loss_scale,
        saturate,
        stochastic_round,
        u4,
        u8,
        u16,
        u32,
        u64,
    )
    from tessera.model.tensor import Tensor
    from tessera.placement import cpu, device, gpu, mesh, prefetch
    from tessera.state import (
        KVCache,
        OptimizerState,
        State,
        checkpointable,
        fp32_master,
        paged,
        rolling_window,
    )

__all__ = [
    "KVCache",
    "OptimizerState",
    "State",
    "Tensor",
    "accum",
    "autodiff",
    "bf16",
    "boolean",
    "checkpointable",
    "cpu",
    "device",
    "f8e4m3",
    "f8e5m2",
    "f16",
    "f32",
    "f64",
    "fp32_master",
    "gpu",
    "graph",
    "i4",
    "i8",
    "i16",
    "i32",
    "i64",
    "jit",
    "loss_scale",
    "mesh",
    "op",
    "paged",
    "prefetch",
    "rolling_window",
    "saturate",
    "stochastic_round",
    "u4",
    "u8",
    "u16",
    "u32",
    "u64",
]

_HOMES: Final = {
    "tessera.graph.training": ("autodiff", "jit"),
    "tessera.model.tensor": ("Tensor",),
    "tessera.placement": ("cpu", "device", "gpu", "mesh", "prefetch"),
    "tessera.state": (
        "KVCache",
        "OptimizerState",
        "State",
        "checkpointable",
        "fp32_master",
        "paged",
        "rolling_window",
    ),
}


def __getattr__(name: str) -> object:
    """The public names, imported when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("graph", "op"):
        return import_module(f"tessera.{name}")
    home = next((module for module, names in _HOMES.items() if name in names), "tessera.model.numeric")
    return getattr(import_module(home), name)
