"""`Tensor["B", "S", 768, bf16 @ accum(f32)]`: what a model says of a tensor before there is one.

Takes extents (numbers, names, expressions such as "2*S+1", dimensions with a range) and an element type; gives a
`TensorSpec`. Invariant: a name means one dimension wherever it stands in the signature of one entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from tessera.errors import LanguageError
from tessera.model.numeric import Numeric, f32, names_type, numeric_of
from tessera.model.site import Site, here
from tessera_build.ir.core.dims import Dim, Extent, Range, parse_extent, symbol, symbols_of
from tessera_build.ir.core.types import DType


@dataclass(frozen=True, slots=True)
class Dimension:
    """A symbolic dimension with a range; `high` None is no limit."""

    name: str
    low: int = 1
    high: int | None = None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and element type of a tensor; `ranges` are those of dimensions that were given with one."""

    shape: tuple[Extent, ...]
    numeric: Numeric = f32
    ranges: tuple[Dimension, ...] = ()
    site: Site | None = None

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.numeric.dtype

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the dimensions in the shape."""
        return frozenset[str]().union(*(symbols_of(extent) for extent in self.shape))

    def limits(self) -> dict[str, Range]:
        """The ranges that the annotation states, by name."""
        return {dimension.name: (dimension.low, dimension.high) for dimension in self.ranges}

    def __str__(self) -> str:
        return f"{self.numeric.dtype}[{', '.join(str(extent) for extent in self.shape)}]{self.numeric.policy}"


def spec_of(items: object) -> TensorSpec:
    """The specification that the brackets behind `Tensor` state; without an element type it is f32."""
    site = here()
    parts = cast("tuple[object, ...]", items) if isinstance(items, tuple) else (items,)
    numeric = f32
    if parts and isinstance(parts[-1], Numeric | DType):
        numeric, parts = numeric_of(parts[-1]), parts[:-1]
    shape = tuple(_extent(part, site) for part in parts)
    ranges = tuple(part for part in parts if isinstance(part, Dimension))
    return TensorSpec(shape, numeric, ranges, site)


def _extent(part: object, site: Site | None) -> Extent:
    match part:
        case Dimension():
            return symbol(part.name)
        case Dim():
            return part
        case int() if not isinstance(part, bool) and part >= 0:
            return part
        case str() if names_type(part):
            raise LanguageError(
                "BAD_EXTENT",
                f"{part!r} in the annotation of a tensor is an element type and no dimension",
                site=site,
                expected="the type itself",
                found=repr(part),
                hint='from tessera import f32; Tensor["B", 768, f32]',
            )
        case str():
            try:
                return parse_extent(part)
            except ValueError as error:
                raise _bad(part, site) from error
        case _:
            raise _bad(part, site)


def _bad(part: object, site: Site | None) -> LanguageError:
    return LanguageError(
        "BAD_EXTENT",
        "an extent in the annotation of a tensor is no extent",
        site=site,
        expected='a number of 0 or more, a name such as "B", or an expression such as "2*S+1"',
        found=repr(part),
        hint='the element type stands last: Tensor["B", 768, f32]',
    )
