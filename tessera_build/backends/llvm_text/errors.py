"""The error of code generation.

Takes: what failed, in which unit, and what LLVM said.
Gives: `CompileError`, a `TesseraError`.
Invariant: whatever LLVM does (refuse, warn, end its process) reaches the caller as this type.
"""

from bundle_format.errors import TesseraError


class CompileError(TesseraError):
    """IR text cannot become an object for the asked machine."""

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__("COMPILE", message, where=where, expected=expected, found=found, hint=hint)
