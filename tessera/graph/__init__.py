"""`graph.*`: functions and classes as entries of a bundle, and transforms of them.

Takes the author's functions; gives modules. Invariant: a transform takes functions and gives functions, so that they
compose in any order.
"""

from tessera.derive.custom import custom_jvp, custom_vjp
from tessera.derive.derivatives import backward, forward, grad, hvp, jvp, vjp
from tessera.graph.dims import dim, require
from tessera.graph.module import GraphModule, Module, module
from tessera.graph.training import autodiff, jit, training_step

__all__ = [
    "GraphModule",
    "Module",
    "autodiff",
    "backward",
    "custom_jvp",
    "custom_vjp",
    "dim",
    "forward",
    "grad",
    "hvp",
    "jit",
    "jvp",
    "module",
    "require",
    "training_step",
    "vjp",
]
