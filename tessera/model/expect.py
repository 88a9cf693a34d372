"""What functions of the language expect of arguments that are no tensors, and of how tensors are nested.

Takes arguments; raises `LanguageError` at the author's line where one is of another kind. Invariant: what is refused is
named by the word that the author has called.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera.model.tensor import Value, described
from tessera.model.tree import aligned, pictured


def expect_functions(name: str, expected: str, *functions: object) -> None:
    """Refuse a value where a function is to be traced."""
    for function in functions:
        if not callable(function):
            raise LanguageError(
                "BAD_ARGUMENT",
                f"{name} takes functions: what it is given is computed anyway",
                site=here(),
                expected=expected,
                found=described(function) if isinstance(function, Value) else repr(function)[:200],
            )


def matched(like: object, tree: object, code: str, message: str) -> list[object]:
    """The leaves of a tree in the order of those of another one, which must be nested alike (`tree.aligned`)."""
    found = aligned(like, tree)
    if found is None:
        raise LanguageError(code, message, site=here(), expected=pictured(like), found=pictured(tree))
    return found
