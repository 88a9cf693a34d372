"""The root of every error that Tessera raises on purpose, and the bundle's own.

Takes: what went wrong, where, what was expected, what was found and what a person should do about it.
Gives: one exception type to catch (`TesseraError`) and one way to print it (`diagnostics`).
Invariant: `code` is a stable, upper-case word that programs may compare; the texts are for people and may change.

This file is the lowest of the house: it imports nothing of Tessera, and every other package may import it.
"""

from typing import ClassVar


class TesseraError(Exception):
    """Something a person can act on. `where` is an ONNX node name, `file:line:column`, a path or a field."""

    exit_code: ClassVar[int] = 1

    def __init__(  # noqa: PLR0913  every fact is a keyword
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.expected = expected
        self.found = found
        self.hint = hint

    def diagnostics(self) -> str:
        """The whole message, one line for each fact that is known, ready for a terminal."""
        facts = (("at", self.where), ("expected", self.expected), ("found", self.found), ("help", self.hint))
        lines = [f"error[{self.code}]: {self.message}"]
        lines += [f"  {label + ':':<10}{text}" for label, text in facts if text is not None]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.diagnostics()

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries (compile workers); Exception's own pickling drops keyword-only arguments.
        return _rebuild, (type(self), self.code, self.message), self.__dict__


class BundleError(TesseraError):
    """A bundle cannot be written, or is damaged, hostile or newer than this reader."""

    exit_code: ClassVar[int] = 6


class StorageError(BundleError):
    """The operating system refuses to store a sound bundle: the disk is full, the folder may not be written."""

    exit_code: ClassVar[int] = 7


def _rebuild(kind: type[TesseraError], code: str, message: str) -> TesseraError:
    """Make an error again after pickling; the remaining fields arrive through `__dict__`."""
    error = kind.__new__(kind, code, message)
    Exception.__init__(error, message)
    return error
