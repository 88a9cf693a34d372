"""The errors of this room: settings that are wrong, and a machine that cannot serve.

Takes: problems, each with `file:line:column`, what was expected and what was found.
Gives: `ConfigError`, one exception for a whole file, and `HostError`.
Invariant: a `ConfigError` made of several problems holds them in file order.
"""

from collections.abc import Sequence
from typing import ClassVar

from bundle_format.errors import TesseraError


class ConfigError(TesseraError):
    """A setting is unknown, missing, of the wrong type or out of range. `problems` holds each one of the file."""

    exit_code: ClassVar[int] = 2
    problems: "tuple[ConfigError, ...]" = ()

    @classmethod
    def of(cls, problems: "Sequence[ConfigError]") -> "ConfigError":
        """One error for all problems of a file: itself when there is only one."""
        if len(problems) == 1:
            return problems[0]
        error = cls("CONFIG_INVALID", f"{len(problems)} problems in one settings file", where=problems[0].where)
        error.problems = tuple(problems)
        return error

    def diagnostics(self) -> str:
        """Each problem in turn, in the order of the file."""
        if not self.problems:
            return super().diagnostics()
        return "\n".join(problem.diagnostics() for problem in self.problems)


class HostError(TesseraError):
    """This machine or this installation is not fit for what was asked; the request itself is right."""

    exit_code: ClassVar[int] = 7
