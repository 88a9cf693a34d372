"""The door of the language's functions: arguments become what their annotations say, or are refused by name.

Takes a function whose parameters are annotated; gives the same function behind a door. Invariant: what a function gets
has the type that it states, so that no message of its inside reaches an author.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from tessera.errors import LanguageError
from tessera.model.site import Site, here
from tessera.model.tensor import Tensor, Value, described, element_type, lift, trace_of
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.core.types import BOOL, F32, I64, DType

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Place:
    """A parameter of a function, as messages name them; `site` is the call where that is not the one that runs."""

    function: str
    argument: str
    site: Site | None = None

    def refused(self, expected: str, found: object, hint: str | None = None) -> LanguageError:
        """The error of an argument that is none."""
        return LanguageError(
            "BAD_ARGUMENT",
            f"{self.function} cannot take its argument {self.argument}",
            site=self.site or here(),
            expected=expected,
            found=found_text(found),
            hint=hint,
        )


Reader = Callable[[object, Place, Sequence[object]], object]  # an argument, its place, all arguments


@dataclass(frozen=True, slots=True)
class Inside:
    """The function reads the argument itself, because it has more to say."""


@dataclass(frozen=True, slots=True)
class From:
    """A whole number from `low` on."""

    low: int


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number that is neither infinite nor none."""


@dataclass(frozen=True, slots=True)
class As:
    """A tensor; numbers become ones of this type, whatever stands beside them."""

    dtype: DType


_NUMBERS: tuple[type, ...] = (Value, Dim, int, float, np.ndarray, np.generic)
_LISTS: tuple[type, ...] = (list, tuple)
_TRUTHS: tuple[type, ...] = (bool, np.bool_)
Count = Annotated[int, From(1)]
Condition = Annotated[Value, As(BOOL)]
Finite = Annotated[float, Bounded()]
Exact = Annotated[Value, As(I64)]  # an extent keeps all of its digits


def door(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function, with every argument read as its parameter is annotated.

    Tensors: arrays become constants, numbers and extents scalars of the first tensor's type. Numbers: numpy's become
    Python's. Raises BAD_ARGUMENT at the author's place for anything else.
    """
    readers = _readers(function)
    named = {place.argument: (reader, place) for reader, place in readers if reader is not None}
    rest = readers[-1] if readers and _takes_more(function) else None

    @wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = (*args, *kwargs.values())
        read: list[object] = []
        for index, argument in enumerate(args):
            reader, place = readers[index] if index < len(readers) else rest or (None, None)
            read.append(argument if reader is None or place is None else reader(argument, place, given))
        words: dict[str, object] = dict(kwargs)
        for name in kwargs:  # in the author's order, in which constants become nodes
            if name in named:
                reader, place = named[name]
                words[name] = reader(kwargs[name], place, given)
        return cast("Callable[..., Result]", function)(*read, **words)

    return called


def _takes_more(function: Callable[..., object]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(function).parameters.values())


def _readers(function: Callable[..., object]) -> list[tuple[Reader | None, Place]]:
    """What reads each parameter, in order; None where any object will do."""
    home = function.__module__.removeprefix("tessera.")
    name = f"{home if home in ('op.random', 'op.init') else 'op'}.{function.__name__}"
    hints = get_type_hints(function, include_extras=True)
    return [(reader_of(hints[word]), Place(name, word)) for word in inspect.signature(function).parameters]


def reader_of(hint: object) -> Reader | None:
    """What reads an argument of an annotation; None where any object will do."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(parts[0], parts[1])
    if origin in (Union, UnionType):
        reader = _of_union([part for part in parts if part is not NoneType])
        return _or_none(reader) if reader is not None and NoneType in parts else reader
    if origin is not None:
        element = reader_of(parts[0]) if origin is Sequence else None
        return None if element is None else _several(element)
    known: dict[object, Reader] = {Value: _tensor, int: whole, float: number, bool: truth}
    if hint in known:
        return known[hint]
    return _instance(hint) if isinstance(hint, type) and hint is not object else None


def _annotated(hint: object, how: object) -> Reader | None:
    match how:
        case From(low):
            return lambda argument, place, given: whole(argument, place, given, low)
        case As(dtype):
            return lambda argument, place, given: _tensor(argument, place, given, dtype)
        case Bounded():
            return _bounded
        case Inside():
            return None
        case _:
            return reader_of(hint)


def _of_union(parts: Sequence[object]) -> Reader | None:
    if Value in parts:
        return _operand if float in parts or int in parts else _tensor
    if set(parts) == {int, Dim}:
        return extent
    return reader_of(parts[0]) if len(parts) == 1 else None


def _or_none(reader: Reader) -> Reader:
    return lambda argument, place, given: None if argument is None else reader(argument, place, given)


def _several(reader: Reader) -> Reader:
    def read(argument: object, place: Place, given: Sequence[object]) -> object:
        if not isinstance(argument, list | tuple):
            raise place.refused("a list or a tuple", argument)
        items = cast("Sequence[object]", argument)
        return tuple(reader(item, place, (*items, *given)) for item in items)

    return read


def _instance(kind: type) -> Reader:
    def read(argument: object, place: Place, _: Sequence[object]) -> object:
        if not isinstance(argument, kind):
            raise place.refused("a text" if kind is str else f"a {kind.__name__}", argument)
        return argument

    return read


def _tensor(argument: object, place: Place, given: Sequence[object], wanted: DType | None = None) -> object:
    """A tensor; numbers take a type that is stated, else that of the first tensor; alone they are f32, as extents."""
    if isinstance(argument, Value):
        return argument
    _operand(argument, place, given)
    beside: list[object] = [other for other in given if isinstance(other, Value | np.ndarray | np.generic)]
    like = wanted or (element_type("", beside) if beside else None if isinstance(argument, bool) else F32)
    if wanted == I64 and isinstance(argument, bool | float):
        like = None if isinstance(argument, bool) else F32
    trace = trace_of(given)
    return Tensor(trace, lift(trace, argument, like, here()))


def value_at(place: Place, argument: object, beside: Sequence[object] = ()) -> Value:
    """An argument as a tensor, beside others that give numbers their type; raises where it is none."""
    return cast(Value, _tensor(argument, place, beside))


def _operand(argument: object, place: Place, _: Sequence[object]) -> object:
    """A tensor, an array, a number or an extent, which the op makes a tensor of."""
    if not isinstance(argument, _NUMBERS):
        hint = "op.constant([1.0, 2.0]) is a list as a tensor" if isinstance(argument, _LISTS) else None
        raise place.refused("a tensor, a parameter, a numpy array or a number", argument, hint)
    return argument


def whole(argument: object, place: Place, _: Sequence[object] = (), low: int | None = None) -> int:
    """A whole number of Python's, not below `low`, that fits 64 bits."""
    plain = _plain(argument)
    lowest = -(1 << 63) if low is None else low
    if isinstance(plain, bool) or not isinstance(plain, int) or not lowest <= plain < 1 << 63:
        wanted = "a whole number" if low is None else f"a whole number of {low} or more"
        raise place.refused(wanted, argument, _EXTENT if isinstance(argument, Dim) else None)
    return plain


def number(argument: object, place: Place, _: Sequence[object] = ()) -> float | int:
    """A number of Python's that a float can hold."""
    plain = _plain(argument)
    if (
        isinstance(plain, bool)
        or not isinstance(plain, int | float)
        or (isinstance(plain, int) and abs(plain) >= _LARGEST)
    ):
        raise place.refused("a number", argument, _EXTENT if isinstance(argument, Dim) else None)
    return plain


def _bounded(argument: object, place: Place, given: Sequence[object]) -> float | int:
    found = number(argument, place, given)
    if not math.isfinite(found):
        raise place.refused("a finite number", argument)
    return found


def extent(argument: object, place: Place, _: Sequence[object] = ()) -> Extent:
    """A whole number, or an extent of a tensor."""
    return argument if isinstance(argument, Dim) else whole(argument, place)


def truth(argument: object, place: Place, _: Sequence[object] = ()) -> bool:
    """True or False."""
    if not isinstance(argument, _TRUTHS):
        raise place.refused("True or False", argument)
    return bool(argument)


def _plain(argument: object) -> object:
    """Python's number for one of numpy's."""
    return cast("np.generic[object]", argument).item() if isinstance(argument, np.integer | np.floating) else argument


def found_text(found: object) -> str:
    """What an argument is, for messages."""
    if isinstance(found, Value):
        return described(found)
    kind = type(found).__name__
    if isinstance(found, np.ndarray):
        array = cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", found)
        return f"an array of {array.dtype}{list(array.shape)}"
    return f"{kind}: {found!r}"[:200]


_EXTENT = "an extent has no number until the model runs; --dims fixes it"
_LARGEST = 1 << 1023  # floats above a whole number
