"""The one error of the linker.

Takes: a sentence, and the facts that help (object, section, names).
Gives: `LinkError`, a `TesseraError`.
Invariant: every refusal of the linker is this type; a damaged object never surfaces as a `struct.error`.
"""

from collections.abc import Sequence

from bundle_format.errors import TesseraError


class LinkError(TesseraError):
    """Objects cannot become a self-contained shared object."""

    def __init__(self, message: str, *, where: str | None = None, found: str | None = None) -> None:
        super().__init__("LINK", message, where=where, found=found)


def quoted(names: Sequence[str]) -> str:
    """A list of names as a person reads it: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)
