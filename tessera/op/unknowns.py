"""The unknowns of an equation as one tensor: those of a nesting lie end to end in a vector.

Takes where a search begins, a tensor or a nesting of tensors of f32 or of f64, and a function of such a nesting; gives
one tensor and the function of it. Invariant: a single tensor stays as it is, so that nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

from tessera.errors import LanguageError
from tessera.model.arguments import Place, value_at
from tessera.model.expect import expect_functions, matched
from tessera.model.site import here
from tessera.model.tensor import Value, described, emit
from tessera.model.tree import leaves, pictured, rebuild
from tessera_build.ir.core.types import F32, F64
from tessera_build.ir.graph.ops.shapes import count

T = TypeVar("T")


class Unknowns(Generic[T]):
    """The unknowns of the equation `name`, whose argument `argument` says where the search begins."""

    def __init__(self, initial: T, name: str, argument: str) -> None:
        self.name = name
        self.initial = initial
        place = Place(f"op.{name}", argument)
        found = leaves(initial)
        self.nested = any(path for path, _ in found)
        self.tensors = [value_at(place, leaf) for _, leaf in found]
        kinds = {tensor.dtype for tensor in self.tensors}
        if kinds not in ({F32}, {F64}):
            raise LanguageError(
                "TYPE_MISMATCH",
                f"{name} looks for an answer in f32 or f64",
                site=here(),
                expected="f32 or f64, of all unknowns the same",
                found=", ".join(map(described, self.tensors)) or "no unknown",
                hint="op.cast(x, f32)",
            )

    def begin(self) -> Value:
        """Where the search begins."""
        return self._joined(self.tensors)

    def function(self, function: Callable[[T], T]) -> Callable[[Value], Value]:
        """The function of one tensor; raises where it gives something else than it takes."""
        expect_functions(self.name, "lambda x: ...", function)

        def apart(joined: Value) -> Value:
            result = function(self.taken(joined))
            message = f"the function of {self.name} gives another type than it takes"
            found = matched(self.initial, result, "CARRY_CHANGES_TYPE", message)
            types = [(leaf.shape, leaf.dtype) if isinstance(leaf, Value) else None for leaf in found]
            if types != [(tensor.shape, tensor.dtype) for tensor in self.tensors]:
                raise LanguageError(
                    "CARRY_CHANGES_TYPE",
                    message,
                    site=here(),
                    expected=pictured(rebuild(self.initial, self.tensors)),
                    found=pictured(result),
                )
            return self._joined(cast("list[Value]", found))

        return apart

    def taken(self, joined: Value) -> T:
        """What was joined, as the author nests it."""
        if not self.nested:
            return cast(T, joined)
        parts: list[Value] = []
        for tensor in self.tensors:
            begin = sum((count(part.shape) for part in parts), 0)
            stop = begin + count(tensor.shape)
            part = emit("slice", joined, starts=(begin,), stops=(stop,), steps=(1,))
            parts.append(emit("reshape", part, shape=tensor.shape))
        return cast(T, rebuild(self.initial, parts))

    def _joined(self, tensors: list[Value]) -> Value:
        if not self.nested:
            return tensors[0]
        flat = [emit("reshape", tensor, shape=(count(tensor.shape),)) for tensor in tensors]
        return emit("concat", *flat, axis=0)
