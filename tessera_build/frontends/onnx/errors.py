"""The errors of this room: a model that is broken, and a model that is sound but beyond what Tessera builds.

Takes one problem or many; gives one exception for the whole file. Invariant: `problems` holds every problem of the
stage that failed, in the order of the model's nodes, so a person repairs a model in one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from bundle_format.errors import TesseraError


class OnnxError(TesseraError):
    """Base of both errors: `problems` holds each one when there are several."""

    problems: tuple[TesseraError, ...] = ()

    @classmethod
    def of(cls, problems: Sequence[TesseraError], where: str) -> Self:
        """One error for all problems of the model called `where`."""
        count = len(problems)
        error = cls(problems[0].code, f"{where} has {count} problem{'s' if count > 1 else ''}", where=where)
        error.problems = tuple(problems)
        return error

    def diagnostics(self) -> str:
        """Each problem in turn, in the order of the model's nodes."""
        if not self.problems:
            return super().diagnostics()
        return "\n".join([self.message, *(problem.diagnostics() for problem in self.problems)])


class ReportedError(Exception):
    """A value cannot be made, because of a problem that has been kept already."""


class ModelError(OnnxError):
    """The file is missing, no ONNX model, or an ill-formed one."""

    exit_code: ClassVar[int] = 3


class UnsupportedError(OnnxError):
    """The model is sound, but uses operators, attributes or types that Tessera does not build."""

    exit_code: ClassVar[int] = 4


def unsupported(message: str, *, found: str | None = None, hint: str | None = None) -> UnsupportedError:
    """One thing that is beyond what Tessera builds; the importer adds the node's name."""
    return UnsupportedError("UNSUPPORTED", message, found=found, hint=hint)


def ill_formed(message: str, *, expected: str | None = None, found: str | None = None) -> ModelError:
    """One thing that breaks the rules of ONNX; the importer adds the node's name."""
    return ModelError("BAD_MODEL", message, expected=expected, found=found)
