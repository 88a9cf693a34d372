"""What the language raises when a kernel or a model breaks its rules.

Takes the misuse and the author's place in the source; gives one exception for kernels and one for models. Invariant:
every message names the line of the author's code that caused it, never a line of the language itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bundle_format.errors import TesseraError
from tessera.model.site import Site


class KernelError(TesseraError):
    """A kernel's source is not a legal tile program."""

    exit_code: ClassVar[int] = 2

    def __init__(
        self, message: str, *, where: str | None = None, expected: str | None = None, found: str | None = None
    ) -> None:
        super().__init__("KERNEL", message, where=where, expected=expected, found=found)


@dataclass(frozen=True, slots=True)
class Note:
    """One more fact of an error: what something is, and where it came from."""

    label: str
    text: str
    site: Site | None = None

    def __str__(self) -> str:
        return self.text if self.site is None else f"{self.text}, from {self.site.described()}"


class LanguageError(TesseraError):
    """A model's source breaks a rule of the language, or a type rule of what it computes with.

    `site` is the place in the author's file; `notes` say what the operands are and where each was made.
    """

    exit_code: ClassVar[int] = 2

    def __init__(  # noqa: PLR0913  every fact is a keyword
        self,
        code: str,
        message: str,
        *,
        site: Site | None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
        notes: tuple[Note, ...] = (),
    ) -> None:
        where = None if site is None else str(site)
        super().__init__(code, message, where=where, expected=expected, found=found, hint=hint)
        self.site = site
        self.notes = notes

    def at(self, site: Site) -> LanguageError:
        """This error; where it has no place of its own, at this one."""
        if self.site is None:
            self.site, self.where = site, str(site)
        return self

    def diagnostics(self) -> str:
        """The facts, with the author's line and a caret under the place, and the operands after them."""
        lines: list[str] = []
        for line in super().diagnostics().splitlines():
            lines.append(line)
            if line.startswith("  at:") and self.site is not None:
                lines += self.site.excerpt()
        lines += [f"  {note.label + ': ':<10}{note}" for note in self.notes]
        return "\n".join(lines)
