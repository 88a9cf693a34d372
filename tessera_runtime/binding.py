"""Shapes of inputs become values of symbolic dimensions.

Takes: an entry's signature; the shapes of one call.
Gives: the dims in ABI order, or a `RunError` that names the input, the dimension, what was expected and what was found.
Invariant: every extent of every input has been compared with the signature when the dims are returned.
"""

from collections.abc import Mapping, Sequence
from typing import final

from bundle_format.dims import DimExpression
from bundle_format.errors import BundleError
from bundle_format.schema import DimRange, Entry, Value
from tessera_runtime.errors import RunError


@final
class DimBinder:
    """Binds the dims of one entry. A dim gets its value where it stands alone in a shape; the rest is compared."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        plain = {
            extent.plain_symbol
            for value in entry.inputs
            for extent in value.shape
            if isinstance(extent, DimExpression) and extent.plain_symbol is not None
        }
        unbound = [dim.name for dim in entry.dims if dim.name not in plain]
        if unbound:
            raise BundleError(
                "DIM_UNBOUND",
                f"no input has the dimension {unbound[0]!r} as an extent of its own",
                where=f"entry {entry.name}",
            )

    def bind(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The values of the entry's dims for inputs of these shapes."""
        values: dict[str, int] = {}
        first: dict[str, str] = {}
        for value, shape in zip(self._entry.inputs, shapes, strict=True):
            if len(shape) != len(value.shape):
                raise _shape_error("INPUT_RANK", "has another number of axes", value, shape, None)
            for axis, extent in enumerate(value.shape):
                name = extent.plain_symbol if isinstance(extent, DimExpression) else None
                if name is not None and name not in values:
                    values[name], first[name] = shape[axis], f"axis {axis} of {value.name!r}"
        for value, shape in zip(self._entry.inputs, shapes, strict=True):
            _check_shape(value, shape, values, first)
        for dim in self._entry.dims:
            _check_range(dim, values[dim.name], first[dim.name])
        return tuple(values[dim.name] for dim in self._entry.dims)


def _check_shape(value: Value, shape: tuple[int, ...], values: Mapping[str, int], first: Mapping[str, str]) -> None:
    for axis, extent in enumerate(value.shape):
        expected = extent if isinstance(extent, int) else extent.evaluate(values)
        if shape[axis] != expected:
            hint = None
            if isinstance(extent, DimExpression):
                bound = (f"{name} is {values[name]}, from {first[name]}" for name in sorted(extent.symbols))
                hint = f"{extent.text} is {expected}: " + "; ".join(bound)
            raise _shape_error("INPUT_SHAPE", f"has another extent on axis {axis}", value, shape, hint)


def _check_range(dim: DimRange, found: int, origin: str) -> None:
    if found < dim.min or (dim.max is not None and found > dim.max):
        upper = "" if dim.max is None else f" to {dim.max}"
        raise RunError(
            "DIM_RANGE",
            f"the dimension {dim.name!r} is outside the range that the model was built for",
            where=origin,
            expected=f"{dim.min}{upper or ' or more'}",
            found=str(found),
            hint="give inputs of another size, or build the model for this size",
        )


def _shape_error(code: str, what: str, value: Value, shape: tuple[int, ...], hint: str | None) -> RunError:
    extents = (extent.text if isinstance(extent, DimExpression) else str(extent) for extent in value.shape)
    return RunError(
        code,
        f"the input {value.name!r} {what}",
        where=value.name,
        expected="[" + ", ".join(extents) + "]",
        found="[" + ", ".join(map(str, shape)) + "]",
        hint=hint,
    )
