"""What `x[key]` means: numpy's basic indices on shapes whose extents may be symbolic.

Takes a key and a shape; gives the slice of every axis, at most one gather, and the shape of the result. Invariant: a
bound that depends on a symbolic extent is proved by its range, or becomes a guard of the entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, cast, runtime_checkable

import numpy as np

from tessera.errors import LanguageError
from tessera.model.site import Site
from tessera.model.trace import Trace
from tessera_build.ir.core.dims import Dim, Extent
from tessera_build.ir.graph.ops.shapes import ceildiv, shape_text

Shape = tuple[Extent, ...]


@runtime_checkable
class Shaped(Protocol):
    """A tensor or an array, as far as indices know it."""

    @property
    def shape(self) -> Shape:
        """Extents of all axes."""
        ...


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """Starts, stops and steps of every axis (None: all of it), an axis with its indices, and the result's shape."""

    slices: tuple[Shape, Shape, tuple[int, ...]] | None
    gathered: tuple[int, Shaped] | None
    shape: Shape


@dataclass(slots=True)
class _Plan:
    """The plan while it is made."""

    starts: list[Extent] = field(default_factory=list[Extent])
    stops: list[Extent] = field(default_factory=list[Extent])
    steps: list[int] = field(default_factory=list[int])
    shape: list[Extent] = field(default_factory=list[Extent])
    gathered: tuple[int, Shaped] | None = None

    def axis(self, start: Extent, stop: Extent, step: int = 1) -> None:
        """One more axis of the source."""
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)


def index_plan(key: object, shape: Shape, trace: Trace, site: Site | None) -> IndexPlan:
    """The plan for one key."""
    plan = _Plan()
    for item in _expanded(key, shape, site):
        if item is None:
            plan.shape.append(1)
            continue
        _place(plan, item, (shape[len(plan.starts)], trace), site)
    whole = all(e == 0 for e in plan.starts) and tuple(plan.stops) == shape and all(s == 1 for s in plan.steps)
    slices = None if whole else (tuple(plan.starts), tuple(plan.stops), tuple(plan.steps))
    return IndexPlan(slices, plan.gathered, tuple(plan.shape))


def _expanded(key: object, shape: Shape, site: Site | None) -> list[object]:
    """One item for every axis, and None for every new one."""
    items = list(cast("tuple[object, ...]", key)) if isinstance(key, tuple) else [key]
    used = sum(1 for item in items if item is not None and item is not Ellipsis)
    if used > len(shape) or sum(1 for item in items if item is Ellipsis) > 1:
        raise LanguageError(
            "BAD_INDEX",
            "a tensor is indexed with more axes than it has",
            site=site,
            expected=f"at most {len(shape)} indices, and one ...",
            found=f"{used} on {shape_text(shape)}",
        )
    rest: list[object] = [slice(None)] * (len(shape) - used)
    for position, item in enumerate(items):
        if item is Ellipsis:
            return [*items[:position], *rest, *items[position + 1 :]]
    return [*items, *rest]


def _place(plan: _Plan, item: object, axis: tuple[Extent, Trace], site: Site | None) -> None:
    """Add one item that speaks of an axis of the source."""
    extent, trace = axis
    item = _plain(item)
    match item:
        case bool():
            raise _bad(item, site)
        case int() | Dim():
            start = _inside(item, extent, trace)
            plan.axis(start, start + 1)
        case slice():
            _slice(plan, cast("slice[object, object, object]", item), axis, site)
        case Shaped() if not isinstance(item, ModuleType):  # numpy itself has a function of this name
            if str(getattr(item, "dtype", "")) == "bool":  # it would say how many elements there are only in a run
                raise _bad(item, site)
            if plan.gathered is not None:
                raise LanguageError(
                    "BAD_INDEX", "only one index may be a tensor", site=site, hint="use op.gather for each axis in turn"
                )
            for index in _ends(item):
                _inside(index, extent, trace)
            plan.gathered = (len(plan.starts), item)
            plan.axis(0, extent)
            plan.shape += item.shape
        case _:
            raise _bad(item, site)


def _inside(index: Extent, extent: Extent, trace: Trace) -> Extent:
    """An index counted from the beginning of its axis, which it must lie on."""
    start = _from_end(index, extent)
    message = f"index {index} lies outside of an axis of extent {extent}"
    trace.require(start, ">=", 0, message)
    trace.require(extent, ">=", start + 1, message)
    return start


def _ends(indices: object) -> tuple[int, ...]:
    """The smallest and the largest of indices that are known now."""
    if not isinstance(indices, np.ndarray):
        return ()
    array = cast("np.ndarray[tuple[int, ...], np.dtype[np.generic]]", indices)
    if not array.size or array.dtype.kind not in "iu":
        return ()
    return int(cast(int, array.min())), int(cast(int, array.max()))


def _slice(plan: _Plan, item: slice[object, object, object], axis: tuple[Extent, Trace], site: Site | None) -> None:
    extent, trace = axis
    step = 1 if item.step is None else _plain(item.step)
    if not isinstance(step, int) or step < 1:
        raise LanguageError(
            "BAD_INDEX",
            "a slice has an impossible step",
            site=site,
            expected="a positive number",
            found=repr(step),
            hint="op.flip turns an axis round",
        )
    start = _bound(item.start, (0, extent), trace, site)
    stop = _bound(item.stop, (extent, extent), trace, site)
    if isinstance(start, int) and isinstance(stop, int):
        stop = max(start, stop)
    else:
        trace.require(stop, ">=", start, f"a slice {start}:{stop} ends before it begins")
    plan.axis(start, stop, step)
    plan.shape.append(ceildiv(stop - start, step))


def _bound(given: object, default: tuple[Extent, Extent], trace: Trace, site: Site | None) -> Extent:
    """A bound of a slice; numpy's clipping where all is known, a demand where it is not."""
    fallback, extent = default
    given = _plain(given)
    if given is None:
        return fallback
    if isinstance(given, bool) or not isinstance(given, int | Dim):
        raise _bad(given, site)
    bound = _from_end(given, extent)
    if isinstance(bound, int) and isinstance(extent, int):
        return min(max(bound, 0), extent)
    message = f"bound {given} of a slice lies outside of an axis of extent {extent}"
    trace.require(bound, ">=", 0, message)
    trace.require(extent, ">=", bound, message)
    return bound


def _plain(item: object) -> object:
    """Python's number for one of numpy's."""
    return int(cast(int, item)) if isinstance(item, np.integer) else item


def _from_end(index: Extent, extent: Extent) -> Extent:
    return index + extent if isinstance(index, int) and index < 0 else index


def _bad(item: object, site: Site | None) -> LanguageError:
    return LanguageError(
        "BAD_INDEX",
        "an index of a tensor is none",
        site=site,
        expected="a number, a slice, None, ... or a tensor of integers",
        found=repr(item)[:200],
        hint="op.where chooses elements by a condition",
    )
