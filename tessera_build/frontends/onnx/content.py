"""Known contents: what the importer knows about a tensor's elements at build time, symbolic dims included.

Takes the contents of an op's operands; gives those of its result, or None where they are not known. A content is a
numpy array of the tensor's element type, or an object array whose elements are extents (in integer tensors) and
ratios of extents (in float tensors). Invariant: a folded element equals what the op computes at run time for every
value of the dims below 2**24, where float32 still counts exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tessera_build.frontends.onnx.order import Ranges, larger, sign_of, smaller
from tessera_build.ir.core.dims import Dim, Extent, bounds, floordiv, mod
from tessera_build.ir.core.types import DType, Type
from tessera_build.ir.graph.infer import op_named
from tessera_build.ir.graph.nodes import Array, Attribute

FOLD_LIMIT = 4096  # elements; anything larger is left to the graph's own constant folding
MOVEMENTS = frozenset({"reshape", "transpose", "broadcast_to", "concat", "slice", "gather"})


@dataclass(frozen=True, slots=True)
class Ratio:
    """A float element that is an extent divided by a positive integer."""

    numerator: Extent
    denominator: int = 1


Element = int | float | Dim | Ratio


def whole_extent(element: Element) -> Extent | None:
    """The element as an extent; None for a fraction, and for what may be one."""
    if isinstance(element, Ratio):
        return element.numerator if element.denominator == 1 else None
    if isinstance(element, Dim):
        return element
    return int(element) if math.isfinite(element) and element == int(element) else None


class _Undecided(Exception):  # noqa: N818 - a signal, not an error
    """The element depends on the dims in a way that extents cannot express."""


def is_symbolic(content: Array) -> bool:
    """True when an element is an expression over dims."""
    return content.dtype == object


def fold(
    op: str, contents: Sequence[Array], attributes: Mapping[str, Attribute], state: tuple[DType, Ranges]
) -> Array | None:
    """The content of the op's result, whose element type and ranges of dims are `state`; None where it is not known."""
    dtype = state[0]
    record = op_named(op)
    symbolic = any(is_symbolic(c) for c in contents)
    try:
        if not symbolic or op in MOVEMENTS:
            if record.evaluate is None or not record.ordered or (op == "gather" and is_symbolic(contents[1])):
                return None
            with np.errstate(all="ignore"):
                # Indexing an object array down to one element gives the element itself.
                folded = record.evaluate(contents, attributes, {})[0]
                return pack(np.asarray(folded, dtype=object if symbolic else None), dtype)
        return pack(_fold_symbolic(op, contents, attributes, state), dtype)
    except (_Undecided, KeyError):
        return None


def is_small(type_: Type) -> bool:
    """Whether a result is worth computing at import."""
    return all(isinstance(e, int) for e in type_.shape) and int(np.prod(type_.static_shape)) <= FOLD_LIMIT


def fold_one(
    op: str, contents: Sequence[Array | None], attributes: Mapping[str, Attribute], state: tuple[Type, Ranges]
) -> Array | None:
    """The content of the op's result, whose type and ranges of dims are `state`; None where it is not known."""
    known = [content for content in contents if content is not None]
    if len(known) < len(contents) or not is_small(state[0]):
        return None
    return fold(op, known, attributes, (state[0].dtype, state[1]))


def is_empty(type_: Type) -> bool:
    """Whether a value has no elements: it is known without being computed, and no schedule has to loop over nothing."""
    return 0 in type_.shape and all(isinstance(extent, int) for extent in type_.shape)


def fold_several(
    op: str, contents: Sequence[Array | None], attributes: Mapping[str, Attribute], types: Sequence[Type]
) -> tuple[Array, ...] | None:
    """The contents of the results of an op with several, of plain numbers only; None where they are not known."""
    known = [content for content in contents if content is not None and not is_symbolic(content)]
    record = op_named(op)
    if not record.ordered or len(known) < len(contents) or not all(is_small(type_) for type_ in types):
        return None
    return None if record.evaluate is None else record.evaluate(known, attributes, {})


def pack(content: Array, dtype: DType) -> Array:
    """The content as a plain array when no element is symbolic."""
    if not is_symbolic(content) or any(isinstance(e, (Dim, Ratio)) for e in content.flat):
        return content
    return content.astype(dtype.numpy)


def _fold_symbolic(
    op: str, contents: Sequence[Array], attributes: Mapping[str, Attribute], state: tuple[DType, Ranges]
) -> Array:
    dtype, ranges = state
    if op == "cast":
        return _each(functools.partial(_cast, dtype=dtype, ranges=ranges), contents)
    if op == "select":
        if is_symbolic(contents[0]):
            raise _Undecided
        return np.asarray(np.where(contents[0], contents[1].astype(object), contents[2].astype(object)), dtype=object)
    if op == "reduce":
        return _reduce(contents[0], attributes, ranges)
    if op not in _ELEMENTWISE:
        raise _Undecided
    return _each(functools.partial(_ELEMENTWISE[op], ranges), contents)


def _each(function: Callable[..., object], contents: Sequence[Array]) -> Array:
    operands = np.broadcast_arrays(*(c.astype(object) for c in contents))
    result = np.empty(operands[0].shape, dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = function(*(o[index] for o in operands))
    return result


def _reduce(content: Array, attributes: Mapping[str, Attribute], ranges: Ranges) -> Array:
    names = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}
    combine = functools.partial(_ELEMENTWISE[names[str(attributes["kind"])]], ranges)
    axes = attributes["axes"]
    assert isinstance(axes, tuple)
    moved = np.moveaxis(content, [int(str(a)) for a in axes], range(len(axes)))
    flat = moved.reshape(math.prod(moved.shape[: len(axes)]), *moved.shape[len(axes) :])
    parts = [np.asarray(part, dtype=object) for part in flat]  # of one axis these are elements, not arrays
    result = functools.reduce(lambda a, b: _each(combine, [a, b]), parts)
    return np.expand_dims(result, [int(str(a)) for a in axes]) if attributes["keepdims"] else result


def _ratio(element: Element) -> Ratio:
    if isinstance(element, Ratio):
        return element
    if isinstance(element, Dim) or not math.isfinite(element):
        raise _Undecided
    exact = Fraction(element)
    # A factor such as 0.1 is rounded, and so is its product; only short binary fractions stay exact.
    if exact.denominator > 1024:
        raise _Undecided
    return Ratio(exact.numerator, exact.denominator)


def _number(ratio: Ratio) -> Element:
    return ratio.numerator / ratio.denominator if isinstance(ratio.numerator, int) else ratio


def _difference(left: Element, right: Element) -> Extent:
    """A quantity of the sign of left - right."""
    if isinstance(left, (int, Dim)) and isinstance(right, (int, Dim)):
        return left - right
    a, b = _ratio(left), _ratio(right)
    return a.numerator * b.denominator - b.numerator * a.denominator


def _add(_: Ranges, left: Element, right: Element, factor: int = 1) -> Element:
    if isinstance(left, (int, Dim)) and isinstance(right, (int, Dim)):
        return left + right * factor
    a, b = _ratio(left), _ratio(right)
    numerator = a.numerator * b.denominator + b.numerator * a.denominator * factor
    return _number(Ratio(numerator, a.denominator * b.denominator))


def _subtract(ranges: Ranges, left: Element, right: Element) -> Element:
    return _add(ranges, left, right, -1)


def _multiply(_: Ranges, left: Element, right: Element) -> Element:
    if isinstance(left, (int, Dim)) and isinstance(right, (int, Dim)):
        return left * right
    a, b = _ratio(left), _ratio(right)
    return _number(Ratio(a.numerator * b.numerator, a.denominator * b.denominator))


def _divide(ranges: Ranges, left: Element, right: Element) -> Element:
    if isinstance(left, (int, Dim)) and isinstance(right, (int, Dim)):
        return _floor_divide(left, right, ranges)
    a, b = _ratio(left), _ratio(right)
    numerator, divisor = a.numerator * b.denominator, b.numerator * a.denominator
    if isinstance(divisor, int) and divisor > 0:
        return _number(Ratio(numerator, divisor))
    quotient = floordiv(numerator, divisor) if sign_of(divisor - 1, ranges) == 1 else None
    if quotient is None or quotient * divisor != numerator:
        raise _Undecided
    return _number(Ratio(quotient))


def _floor_divide(left: Extent, right: Extent, ranges: Ranges) -> Extent:
    """Division towards zero, where that is the floor."""
    if sign_of(left, ranges) != 1 or sign_of(right - 1, ranges) != 1:
        raise _Undecided
    return floordiv(left, right)


def _modulo(ranges: Ranges, left: Element, right: Element) -> Element:
    if not isinstance(left, (int, Dim)) or not isinstance(right, (int, Dim)) or sign_of(right - 1, ranges) != 1:
        raise _Undecided
    return mod(left, right)


def _extremum(
    pick: Callable[[Extent, Extent, Ranges], Extent], ranges: Ranges, left: Element, right: Element
) -> Element:
    if isinstance(left, (int, Dim)) and isinstance(right, (int, Dim)):
        return pick(left, right, ranges)
    known = sign_of(_difference(left, right), ranges)
    if known is None:
        raise _Undecided
    return left if (known > 0) == (pick is larger) else right


def _compare(test: str, ranges: Ranges, left: Element, right: Element) -> Element:
    """Decide a comparison from the range of the difference."""
    low, high = bounds(_difference(left, right), ranges)
    below = True if high is not None and high < 0 else False if low is not None and low >= 0 else None
    above = True if low is not None and low > 0 else False if high is not None and high <= 0 else None
    equal = True if (low, high) == (0, 0) else False if below or above else None
    known = {"eq": equal, "ne": equal, "lt": below, "ge": below, "gt": above, "le": above}[test]
    if known is None:
        raise _Undecided
    return known if test in ("eq", "lt", "gt") else not known


def _floor(_: Ranges, element: Element) -> Element:
    ratio = _ratio(element)
    return _number(Ratio(floordiv(ratio.numerator, ratio.denominator)))


def _ceil(_: Ranges, element: Element) -> Element:
    ratio = _ratio(element)
    return _number(Ratio(floordiv(ratio.numerator + (ratio.denominator - 1), ratio.denominator)))


def _negate(ranges: Ranges, element: Element) -> Element:
    return _multiply(ranges, element, -1 if isinstance(element, (int, Dim)) else -1.0)


def _absolute(ranges: Ranges, element: Element) -> Element:
    known = sign_of(_difference(element, 0), ranges)
    if known is None:
        raise _Undecided
    return element if known > 0 else _negate(ranges, element)


def _cast(element: Element, dtype: DType, ranges: Ranges) -> Element:
    if dtype.kind == "bool":
        return _compare("ne", ranges, element, 0)
    if dtype.is_float:
        return Ratio(element) if isinstance(element, Dim) else element if isinstance(element, Ratio) else float(element)
    if isinstance(element, Ratio):
        return _floor_divide(element.numerator, element.denominator, ranges)
    return element if isinstance(element, Dim) else int(element)


_ELEMENTWISE: Mapping[str, Callable[..., Element]] = {
    "add": _add,
    "sub": _subtract,
    "mul": _multiply,
    "div": _divide,
    "mod": _modulo,
    "max": functools.partial(_extremum, larger),
    "min": functools.partial(_extremum, smaller),
    "neg": _negate,
    "abs": _absolute,
    "floor": _floor,
    "ceil": _ceil,
    **{test: functools.partial(_compare, test) for test in ("eq", "ne", "lt", "le", "gt", "ge")},
}
