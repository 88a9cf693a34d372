"""Random numbers with explicit keys: `op.random.*`.

Takes a key, which is a scalar of 64 bits and a value like any other; gives tensors. Invariant: equal keys give equal
numbers in every run, on every machine and for every number of threads; nothing is drawn without a key.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from tessera.errors import LanguageError
from tessera.model.arguments import Count, Inside, door
from tessera.model.numeric import f32, numeric_of
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, constant_of, described, emit, trace_of
from tessera.model.trace import needed
from tessera.op.axes import Shape, extents_of_shape
from tessera.op.creation import Element
from tessera_build.ir.core.types import I64, U64

Key = Annotated[Value, Inside()]  # what is none is told what a key is


@door
def key(seed: Annotated[int, Inside()]) -> Tensor:
    """A key from a seed that the author states."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LanguageError(
            "BAD_SEED", "a seed is none", site=here(), expected="an integer from 0 to 2**64 - 1", found=repr(seed)
        )
    trace = trace_of(())
    return Tensor(trace, constant_of(trace, np.asarray(seed, np.uint64), here()))


@door
def split(parent: Key, count: Count = 2) -> tuple[Tensor, ...]:
    """Keys that are independent of each other and of the draws from the parent of other kinds."""
    drawn = emit("random", _checked(parent), kind="bits", shape=(count,), dtype=U64)
    return tuple(drawn[i] for i in range(count))


@door
def fold_in(parent: Key, number: Value | int) -> Tensor:
    """A key for one of many steps: of the parent and a number such as the step's."""
    step = emit("cast", number, dtype=U64) if isinstance(number, Value) else number
    mixed = emit("add", emit("mul", _as_bits(parent), 0x9E3779B97F4A7C15), step)
    return emit("reshape", emit("random", mixed, kind="bits", shape=(1,), dtype=U64), shape=())


@door
def uniform(parent: Key, shape: Shape, dtype: Element = f32, *, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Numbers from `low` to below `high`, all equally likely."""
    drawn = _drawn("uniform", parent, shape, dtype)
    return drawn if (low, high) == (0.0, 1.0) else drawn * (high - low) + low


@door
def normal(parent: Key, shape: Shape, dtype: Element = f32) -> Tensor:
    """Numbers with mean 0 and variance 1."""
    return _drawn("normal", parent, shape, dtype)


@door
def bernoulli(parent: Key | None, shape: Shape, p: float = 0.5) -> Tensor:
    """True with probability p."""
    return emit("lt", _drawn("uniform", parent, shape, f32), float(p))


@door
def dropout(x: Value, p: float, parent: Key | None) -> Tensor:
    """Elements left out with probability p, the others divided by 1 - p."""
    if not 0.0 <= p < 1.0:
        raise LanguageError("BAD_ARGUMENT", "no probability", site=here(), expected="0 <= p < 1", found=repr(p))
    kept = bernoulli(parent, x.shape, 1.0 - p)
    return emit("select", kept, x * (1.0 / (1.0 - p)), 0.0)


def _drawn(kind: str, parent: Key | None, shape: Shape, dtype: Element) -> Tensor:
    trace = needed()
    extents = extents_of_shape(trace, shape)
    return emit("random", _checked(parent), kind=kind, shape=extents, dtype=numeric_of(dtype).dtype)


def _as_bits(parent: Key) -> Tensor:
    return emit("bitcast" if _checked(parent).dtype == I64 else "cast", parent, dtype=U64)


def _checked(parent: object) -> Value:
    if not isinstance(parent, Value) or parent.shape != () or parent.dtype not in (U64, I64):
        raise LanguageError(
            "RANDOM_WITHOUT_KEY",
            "random numbers need a key",
            site=here(),
            expected="a scalar of u64: op.random.key(seed), op.random.split(key), or an input Tensor[u64]",
            found=described(parent) if isinstance(parent, Value) else repr(parent),
        )
    return parent
