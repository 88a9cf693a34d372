"""Parameters: tensors that a model owns, made by `op.tensor`.

Takes a shape, an element type and an initialiser; gives a `Parameter`, which is a tensor in every trace that uses it.
Invariant: equal initialisers with equal seeds give equal bits on every machine; a parameter without a value stays free
until a safetensors file, a training step or an error decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from tessera.errors import LanguageError
from tessera.model.annotation import TensorSpec
from tessera.model.arguments import Place
from tessera.model.elements import elements
from tessera.model.filled import numbers_of
from tessera.model.numeric import Policy
from tessera.model.site import Site, here
from tessera.model.tensor import Value
from tessera.model.trace import Trace
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import DType
from tessera_build.ir.graph.nodes import Array

Initialiser = Callable[[tuple[int, ...]], Array]


@final
class Parameter(Value):
    """A tensor that the model owns. `group` says who changes it: "weights", or a name of the author's.

    A `frozen` one is a weight of the bundle in training steps, too.
    """

    __slots__ = ("_array", "_initialiser", "frozen", "group", "name", "site", "spec")

    def __init__(self, spec: TensorSpec, name: str, initialiser: Initialiser | None, group: str = "weights") -> None:
        self.spec = spec
        self.name = name
        self.group = group
        self.frozen = False
        self.site: Site | None = here()
        self._initialiser = initialiser
        self._array: Array | None = None

    def value_in(self, trace: Trace) -> int:
        """The value in this trace."""
        return trace.weight(self)

    @property
    def shape(self) -> tuple[Extent, ...]:
        """Extents of all axes; all are numbers."""
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.spec.dtype

    @property
    def policy(self) -> Policy:
        """The numeric policy."""
        return self.spec.numeric.policy

    @property
    def array(self) -> Array | None:
        """The numbers: those given, else the initialiser's; None while the parameter is free."""
        if self._array is None and self._initialiser is not None:
            self.assign(self._initialiser(self.static_shape), self.site)
        return self._array

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as numbers."""
        return tuple(extent for extent in self.spec.shape if isinstance(extent, int))

    def assign(self, array: Array, site: Site | None = None) -> None:
        """Give the parameter its numbers; they must have its shape, and an element type that it holds exactly."""
        array = numbers_of(array, Place("op.tensor", "init", site or self.site))
        if array.shape != self.static_shape:
            raise LanguageError(
                "PARAMETER_SHAPE",
                f"the value of parameter {self.name or '(without a name)'} has another shape",
                site=site or self.site,
                expected=str(list(self.static_shape)),
                found=str(list(array.shape)),
            )
        kept = elements(array, self.dtype, site or self.site)
        kept.flags.writeable = False
        self._array = kept

    def __repr__(self) -> str:
        return f"parameter {self.name}: {self.spec}"
