"""Python's operators, each as the op of Graph IR, or of the language, that it means.

Takes what stands on both sides; gives what `applied` makes of it. Invariant: an operator and its reflected form name
the same op, with the operands in the order in which the author wrote them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar, cast

Result = TypeVar("Result")
Other = TypeVar("Other")


class Operators(ABC, Generic[Result, Other]):
    """Arithmetic, comparisons and logic between `Other`s, of which this is one, giving `Result`s."""

    __slots__ = ()

    @abstractmethod
    def applied(self, op: str, *operands: Other) -> Result:
        """The op of these operands."""

    def _with(self, op: str, *others: Other) -> Result:
        return self.applied(op, cast(Other, self), *others)

    def __add__(self, other: Other) -> Result:
        return self._with("add", other)

    def __radd__(self, other: Other) -> Result:
        return self.applied("add", other, cast(Other, self))

    def __sub__(self, other: Other) -> Result:
        return self._with("sub", other)

    def __rsub__(self, other: Other) -> Result:
        return self.applied("sub", other, cast(Other, self))

    def __mul__(self, other: Other) -> Result:
        return self._with("mul", other)

    def __rmul__(self, other: Other) -> Result:
        return self.applied("mul", other, cast(Other, self))

    def __truediv__(self, other: Other) -> Result:
        return self._with("div", other)

    def __rtruediv__(self, other: Other) -> Result:
        return self.applied("div", other, cast(Other, self))

    def __floordiv__(self, other: Other) -> Result:
        return self._with("floor_divide", other)

    def __rfloordiv__(self, other: Other) -> Result:
        return self.applied("floor_divide", other, cast(Other, self))

    def __mod__(self, other: Other) -> Result:
        return self._with("mod", other)

    def __rmod__(self, other: Other) -> Result:
        return self.applied("mod", other, cast(Other, self))

    def __pow__(self, other: Other) -> Result:
        if isinstance(other, int | float) and other == 2:
            return self._with("mul", cast(Other, self))
        return self._with("pow", other)

    def __rpow__(self, other: Other) -> Result:
        return self.applied("pow", other, cast(Other, self))

    def __matmul__(self, other: Other) -> Result:
        return self._with("matmul", other)

    def __rmatmul__(self, other: Other) -> Result:
        return self.applied("matmul", other, cast(Other, self))

    def __neg__(self) -> Result:
        return self._with("neg")

    def __abs__(self) -> Result:
        return self._with("abs")

    def __lt__(self, other: Other) -> Result:
        return self._with("lt", other)

    def __le__(self, other: Other) -> Result:
        return self._with("le", other)

    def __gt__(self, other: Other) -> Result:
        return self._with("gt", other)

    def __ge__(self, other: Other) -> Result:
        return self._with("ge", other)

    def __eq__(self, other: Other) -> Result:  # type: ignore[override]  # as numpy's: element by element
        return self._with("eq", other)

    def __ne__(self, other: Other) -> Result:  # type: ignore[override]
        return self._with("ne", other)

    def __hash__(self) -> int:
        return id(self)

    def __invert__(self) -> Result:
        return self._with("not")

    def __and__(self, other: Other) -> Result:
        return self._with("and", other)

    def __rand__(self, other: Other) -> Result:
        return self.applied("and", other, cast(Other, self))

    def __or__(self, other: Other) -> Result:
        return self._with("or", other)

    def __ror__(self, other: Other) -> Result:
        return self.applied("or", other, cast(Other, self))

    def __xor__(self, other: Other) -> Result:
        return self._with("xor", other)

    def __rxor__(self, other: Other) -> Result:
        return self.applied("xor", other, cast(Other, self))
