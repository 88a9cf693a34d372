"""Calls on numpy arrays: a function is traced for the arrays' own shapes and run by the reference interpreter.

Takes arrays, or whatever speaks DLPack; gives arrays in the nesting that the function returns. Invariant: the numbers
are those that define the model; compiled code is compared with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np

from tessera.errors import LanguageError
from tessera.graph.bind import Argument, Call, check_call
from tessera.model.annotation import TensorSpec
from tessera.model.numeric import Numeric, numeric_of
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value
from tessera.model.trace import Trace, tracing
from tessera.model.tree import leaves, rebuild
from tessera_build.ir.graph import reference
from tessera_build.ir.graph.nodes import Array


@runtime_checkable
class _Exports(Protocol):
    """What gives its memory by DLPack."""

    def __dlpack__(self, *, stream: object = ...) -> object:
        """The capsule."""
        ...


def run_eagerly(name: str, function: Callable[..., object], arguments: Sequence[Argument], call: Call) -> object:
    """The function's results for arrays."""
    site = here()
    trace = Trace(name)
    feeds: dict[str, Array] = {}

    def taken(value: object) -> object:
        array = to_array(value)
        if array is None:
            return value
        label = f"argument{len(feeds)}"
        feeds[label] = array
        spec = TensorSpec(array.shape, Numeric(numeric_of(str(array.dtype)).dtype), (), site)
        return Tensor(trace, trace.input(label, spec, site))

    with tracing(trace):
        args = [_each(value, taken) for value in call[0]]
        kwargs = {key: _each(value, taken) for key, value in call[1].items()}
        check_call(name, arguments, (args, kwargs))
        result = function(*args, **kwargs)
        values: list[int] = []
        for _, leaf in leaves(result):
            if not isinstance(leaf, Value):
                raise LanguageError("NOT_A_TENSOR", f"{name} returns no tensor", site=site, found=repr(leaf)[:200])
            values.append(leaf.value_in(trace))
        for index, value in enumerate(values):
            trace.builder.output(f"output{index}", value)
    found = reference.run(trace.builder.finish(), name, feeds)
    return rebuild(result, [found[f"output{index}"] for index in range(len(values))])


def _each(value: object, taken: Callable[[object], object]) -> object:
    return rebuild(value, [taken(leaf) for _, leaf in leaves(value)])


def to_array(value: object) -> Array | None:
    """An array of what is one; None for numbers and everything else."""
    if isinstance(value, np.ndarray):
        return cast(Array, value)
    if isinstance(value, _Exports) and not isinstance(value, np.generic | Value):
        return cast(Array, np.from_dlpack(value))  # pyright: ignore[reportArgumentType]
    return None
