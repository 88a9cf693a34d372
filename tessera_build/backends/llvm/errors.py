"""The error of code generation, which this back end shares with the others that go through LLVM."""

from tessera_build.backends.llvm_text.errors import CompileError

__all__ = ["CompileError"]
