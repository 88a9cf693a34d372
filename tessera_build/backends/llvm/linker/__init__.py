"""A static linker for the objects that our own code generator makes; nothing but Python is needed.

Takes: relocatable ELF64 objects for x86-64 or AArch64.
Gives: `link`, which returns a shared object, and `LinkError`.
Invariant: what it does not fully understand it refuses.
"""

from tessera_build.backends.llvm.linker.errors import LinkError
from tessera_build.backends.llvm.linker.link import link

__all__ = ["LinkError", "link"]
