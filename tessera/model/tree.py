"""Results as a person returns them: tensors in tuples, lists and mappings, taken apart and put together again.

Takes any nesting of tuples, named tuples, lists, mappings and None around leaves; gives the leaves in order with a path
each, and the same nesting around other leaves. Invariant: `rebuild(tree, [leaf for _, leaf in leaves(tree)])` equals
the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

Path = tuple[str, ...]


def leaves(tree: object, path: Path = ()) -> list[tuple[Path, object]]:
    """All leaves with their paths; None is no leaf but an empty place."""
    if tree is None:
        return []
    if isinstance(tree, Mapping):
        items = cast("Mapping[object, object]", tree).items()
        return [leaf for key, item in items for leaf in leaves(item, (*path, str(key)))]
    if isinstance(tree, tuple | list):
        parts = cast("Sequence[object]", tree)
        names = cast("tuple[str, ...]", getattr(parts, "_fields", tuple(str(i) for i in range(len(parts)))))
        return [leaf for name, item in zip(names, parts, strict=True) for leaf in leaves(item, (*path, name))]
    return [(path, tree)]


def rebuild(tree: object, replacements: Sequence[object]) -> object:
    """The same nesting around other leaves."""
    rest = iter(replacements)
    return _rebuilt(tree, rest)


def _rebuilt(tree: object, rest: Iterator[object]) -> object:
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        items = cast("Mapping[object, object]", tree).items()
        return {key: _rebuilt(item, rest) for key, item in items}
    if isinstance(tree, tuple | list):
        parts = [_rebuilt(item, rest) for item in cast("Sequence[object]", tree)]
        if isinstance(tree, list):
            return parts
        make = cast("Callable[..., object]", type(cast("tuple[object, ...]", tree)))
        return make(*parts) if hasattr(cast("tuple[object, ...]", tree), "_fields") else tuple(parts)
    return next(rest)
