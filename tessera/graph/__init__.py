"""`graph.*`: functions and classes as entries of a bundle, and transforms of them.

Takes the author's functions; gives modules. Invariant: a transform takes functions and gives functions, so that they
compose in any order.
"""

from tessera.graph.dims import dim, require
from tessera.graph.module import GraphModule, Module, module

__all__ = ["GraphModule", "Module", "dim", "module", "require"]
