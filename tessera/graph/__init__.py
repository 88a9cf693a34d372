"""`graph.*`: functions and classes as entries of a bundle, and transforms of them.

Takes the author's functions; gives modules. Invariant: a transform takes functions and gives functions, so that they
compose in any order.
"""

from tessera.derive.batch import vmap
from tessera.derive.checkpoint import checkpoint
from tessera.derive.custom import custom_jvp, custom_vjp
from tessera.derive.derivatives import backward, forward, grad, hvp, jvp, vjp
from tessera.graph.dims import dim, require
from tessera.graph.imported import OnnxModule, from_onnx
from tessera.graph.module import GraphModule, Module, module
from tessera.graph.training import autodiff, jit, training_step
from tessera.graph.weights import load, save
from tessera.op.control import scan

remat = checkpoint

__all__ = [
    "GraphModule",
    "Module",
    "OnnxModule",
    "autodiff",
    "backward",
    "checkpoint",
    "custom_jvp",
    "custom_vjp",
    "dim",
    "forward",
    "from_onnx",
    "grad",
    "hvp",
    "jit",
    "jvp",
    "load",
    "module",
    "remat",
    "require",
    "save",
    "scan",
    "training_step",
    "vjp",
    "vmap",
]
