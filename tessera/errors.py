"""What the kernel language raises when a program breaks its rules.

Takes the misuse and the author's source line; gives one exception. Invariant: every message names the line of the
kernel that caused it, never a line of the language itself.
"""

from __future__ import annotations

from typing import ClassVar

from bundle_format.errors import TesseraError


class KernelError(TesseraError):
    """A kernel's source is not a legal tile program."""

    exit_code: ClassVar[int] = 2

    def __init__(
        self, message: str, *, where: str | None = None, expected: str | None = None, found: str | None = None
    ) -> None:
        super().__init__("KERNEL", message, where=where, expected=expected, found=found)
