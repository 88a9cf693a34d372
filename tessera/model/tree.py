"""Values as a person nests them: tensors in tuples, lists and mappings, taken apart and put together again.

Takes any nesting of tuples, named tuples, lists, mappings, states and None around leaves; gives the leaves in order
with a path each, and the same nesting around other leaves. Invariant: `rebuild(tree, [leaf for _, leaf in
leaves(tree)])` equals the tree. Leaves of two trees belong together by `aligned` alone: the order of a mapping's keys
says nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Self, cast

from tessera.errors import LanguageError
from tessera.model.site import here
from tessera.model.tensor import Value, described

Path = tuple[str, ...]
_LONGEST = 400  # characters of a nesting in a message
_DEEPEST = 100  # levels; a nesting that holds itself has no end


class Nesting(ABC):
    """A class of objects that hold tensors, as states do, and that pass through transforms and loops as nestings."""

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> str:
        """What two of them have in common that are alike."""

    @abstractmethod
    def parts(self) -> Mapping[str, object]:
        """What it holds, by name."""

    @abstractmethod
    def around(self, parts: Mapping[str, object]) -> Self:
        """One of the same kind that holds other things."""

    @abstractmethod
    def derivative(self) -> Self:
        """The same as what holds derivatives: the slope of a state is no state that is remembered."""


def leaves(tree: object, path: Path = (), *, whole: bool = False) -> list[tuple[Path, object]]:
    """All leaves with their paths; None is no leaf but an empty place. `whole`: a `Nesting` is a leaf."""
    parts = None if whole and isinstance(tree, Nesting) else _parts(tree)
    if parts is None:
        return [(path, tree)]
    _check_depth(len(path))
    return [leaf for key, item in parts.items() for leaf in leaves(item, (*path, str(key)), whole=whole)]


def rebuild(tree: object, replacements: Sequence[object]) -> object:
    """The same nesting around other leaves."""
    return _rebuilt(tree, iter(replacements))


def rebuild_derivatives(tree: object, replacements: Sequence[object]) -> object:
    """The same nesting around the derivatives of its leaves, or around those by them."""
    return _rebuilt(tree, iter(replacements), derivatives=True)


def aligned(like: object, tree: object, depth: int = 0) -> list[object] | None:
    """The leaves of a tree in the order of those of another one; None where the two are nested otherwise.

    Mappings and named tuples are alike where they have the same keys, in whatever order; tuples and lists, which count
    as the same, where they have as many elements.
    """
    wanted, found = _parts(like), _parts(tree)
    if wanted is None or found is None:
        return [tree] if wanted is found else None
    _check_depth(depth)
    if _kind(like) != _kind(tree) or wanted.keys() != found.keys():
        return None
    result: list[object] = []
    for key, part in wanted.items():
        more = aligned(part, found[key], depth + 1)
        if more is None:
            return None
        result += more
    return result


def structure(tree: object) -> Hashable:
    """What two trees have in common that differ in nothing but their leaves: types, and keys in their order."""
    parts = _parts(tree)
    return None if parts is None else (type(tree), tuple((key, structure(item)) for key, item in parts.items()))


def pictured(tree: object) -> str:
    """A nesting for messages, with the types of tensors: `{'mean': f32[3], 'std': f32[3]}`."""
    return repr(rebuild(tree, [_Word(leaf) for _, leaf in leaves(tree)]))[:_LONGEST]


class _Word:
    """A leaf that prints as what a message calls it."""

    def __init__(self, leaf: object) -> None:
        self.leaf = leaf

    def __repr__(self) -> str:
        return described(self.leaf) if isinstance(self.leaf, Value) else repr(self.leaf)


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise LanguageError(
            "NESTED_TOO_DEEP",
            "a nesting of tensors holds itself, or has more levels than any program needs",
            site=here(),
            expected=f"at most {_DEEPEST} levels",
        )


def _parts(tree: object) -> Mapping[Hashable, object] | None:
    """What a nesting holds, by key, name or place; nothing in an empty place, and None for a leaf."""
    if tree is None:
        return {}
    if isinstance(tree, Mapping):
        return cast("Mapping[Hashable, object]", tree)
    if isinstance(tree, Nesting):
        return cast("Mapping[Hashable, object]", tree.parts())
    if isinstance(tree, tuple | list):
        elements = cast("Sequence[object]", tree)
        names = cast("tuple[Hashable, ...]", getattr(elements, "_fields", tuple(range(len(elements)))))
        return dict(zip(names, elements, strict=True))
    return None


def _kind(tree: object) -> str:
    if tree is None:
        return "nothing"
    if isinstance(tree, Mapping):
        return "mapping"
    if isinstance(tree, Nesting):
        return tree.kind
    return "names" if hasattr(tree, "_fields") else "places"


def _rebuilt(tree: object, rest: Iterator[object], *, derivatives: bool = False) -> object:
    parts = _parts(tree)
    if parts is None:
        return next(rest)
    if tree is None:
        return None
    made = {key: _rebuilt(item, rest, derivatives=derivatives) for key, item in parts.items()}
    if isinstance(tree, Mapping):
        return made
    if isinstance(tree, Nesting):
        around = tree.around(cast("Mapping[str, object]", made))
        return around.derivative() if derivatives else around
    if isinstance(tree, list):
        return list(made.values())
    make = cast("Callable[..., object]", type(tree))
    return make(*made.values()) if hasattr(tree, "_fields") else tuple(made.values())
