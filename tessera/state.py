"""State: what an entry remembers from one call to the next, as pairs of values that go in and come out.

Takes annotations such as `KVCache["B", "H", 128, 64, f32]` and `State[...]`; gives objects whose operations return the
next state. Invariant: a state is changed by nothing but being returned, and what is returned has the type that came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast, final

from tessera.errors import LanguageError
from tessera.model.annotation import TensorSpec, spec_of
from tessera.model.arguments import Place, value_at
from tessera.model.numeric import Numeric, f32, i64
from tessera.model.site import here
from tessera.model.tensor import Operand, Tensor, Value, described, emit
from tessera.model.trace import needed
from tessera.model.tree import Nesting
from tessera.placement import Device, unplaced
from tessera_build.ir.core.types import I64


@dataclass(frozen=True, slots=True)
class StateSpec:
    """What a state is made of: names and specifications of its tensors, and the class that holds them."""

    parts: tuple[tuple[str, TensorSpec], ...]
    kind: str
    suffixes: frozenset[str] = frozenset()

    def __matmul__(self, suffix: object) -> StateSpec:
        """`KVCache[...] @ rolling_window`: the same state under one more rule."""
        if isinstance(suffix, Device):
            return self
        if suffix is paged:
            raise unplaced("paged")
        if not isinstance(suffix, Suffix):
            raise _bad_suffix(self, suffix)
        if self.kind not in suffix.kinds:
            raise _bad_suffix(self, suffix.name)
        parts = self.parts
        if suffix is fp32_master:
            parts = tuple((name, replace(spec, numeric=f32)) for name, spec in parts)
        return StateSpec(parts, self.kind, self.suffixes | {suffix.name})


@dataclass(frozen=True, slots=True)
class Suffix:
    """A rule of a state, behind `@`, and the kinds of states that it is for."""

    name: str
    kinds: frozenset[str]


_KINDS = frozenset({"state", "cache", "optimizer"})
rolling_window = Suffix("rolling_window", frozenset({"cache"}))  # what no longer fits takes the oldest one's place
fp32_master = Suffix("fp32_master", frozenset({"optimizer"}))  # f32, whatever the parameter is
paged = Suffix("paged", _KINDS)
checkpointable = Suffix("checkpointable", _KINDS)  # every state is: its arrays can be taken out and given again


def _bad_suffix(spec: StateSpec, found: object) -> LanguageError:
    fitting = [s.name for s in (rolling_window, fp32_master, checkpointable) if spec.kind in s.kinds]
    return LanguageError(
        "BAD_STATE",
        f"what follows @ is no rule for a {spec.kind}",
        site=here(),
        expected=", ".join([*fitting, "device(cpu)"]),
        found=repr(found)[:200],
    )


@final
@dataclass(frozen=True, slots=True)
class State(Nesting):
    """One tensor that is remembered. As an annotation: `State["B", 64, f32]`; `state.set(x)` is the next one."""

    value: Value
    incoming: str = ""
    is_derivative: bool = False

    def __class_getitem__(cls, items: object) -> StateSpec:
        return StateSpec((("", spec_of(items)),), "state")

    def set(self, value: Operand) -> State:
        """The next state."""
        value = value_at(Place("State.set", "value"), value, (self.value,))
        _same_type(self.value, value)
        return replace(self, value=value)

    @property
    def kind(self) -> str:
        """Its name: one state never stands for another one."""
        return f"state {self.incoming}"

    def parts(self) -> Mapping[str, object]:
        """What is remembered."""
        return {"value": self.value}

    def around(self, parts: Mapping[str, object]) -> State:
        """The state that remembers something else."""
        return replace(self, value=cast(Value, parts["value"]))

    def derivative(self) -> State:
        """The state that holds a derivative, which is not remembered."""
        return replace(self, is_derivative=True)


@final
class OptimizerState:
    """What an optimiser remembers of one parameter: `OptimizerState[W]` has its shape and type, f32 @ fp32_master."""

    def __class_getitem__(cls, parameter: object) -> StateSpec:
        if not isinstance(parameter, Value):
            raise LanguageError(
                "BAD_STATE",
                "an optimiser's state belongs to a parameter",
                site=here(),
                expected="OptimizerState[W] with W made by op.tensor",
                found=repr(parameter),
            )
        return StateSpec((("", TensorSpec(parameter.shape, Numeric(parameter.dtype), site=here())),), "optimizer")


@final
@dataclass(frozen=True, slots=True)
class KVCache(Nesting):
    """Keys and values [B, H, S_max, D] of a sequence that grows, and how many of them count.

    As an annotation: `KVCache["B", 8, 128, 64, f32]`. `append` gives the next cache. With `@ rolling_window` it goes
    on for ever: the last S_max stay, in a ring.
    """

    keys: Value
    values: Value
    length: Value
    incoming: str = ""
    rolling: bool = False
    is_derivative: bool = False

    def __class_getitem__(cls, items: object) -> StateSpec:
        spec = spec_of(items)
        if len(spec.shape) != 4:
            raise LanguageError(
                "BAD_STATE",
                "a cache of keys and values has four axes",
                site=here(),
                expected='KVCache["B", "H", S_max, D, f32]',
                found=str(spec),
            )
        count = TensorSpec((spec.shape[0],), i64, (), spec.site)
        return StateSpec((("keys", spec), ("values", spec), ("length", count)), "cache")

    def append(self, keys: Operand, values: Operand) -> KVCache:
        """The cache with [B, H, T, D] more keys and values behind those that count."""
        keys = value_at(Place("KVCache.append", "keys"), keys, (self.keys,))
        values = value_at(Place("KVCache.append", "values"), values, (self.values,))
        grown = [self._written(old, new) for old, new in ((self.keys, keys), (self.values, values))]
        return replace(self, keys=grown[0], values=grown[1], length=self.length + keys.shape[2])

    def _written(self, old: Value, new: Value) -> Value:
        """Rows are axis 2 of the cache; the op writes rows of [B, P, S, Q] with P before them."""
        apart = [(x.dtype, x.ndim, *x.shape[:2], *x.shape[3:]) for x in (old, new)]
        if old.ndim != 4 or apart[0] != apart[1]:
            raise LanguageError(
                "TYPE_MISMATCH",
                "what is appended does not fit the cache",
                site=here(),
                expected=f"[B, H, T, D] like {described(old)}",
                found=described(new),
            )
        room, more = old.shape[2], new.shape[2]
        needed().require(room, ">=", more, f"{more} more keys and values do not fit a cache of {room}")
        first = emit("mod", self.length, room) if self.rolling else self.length
        return emit("scatter_rows", old, new, first, circular=self.rolling)

    def prune(self, count: int) -> KVCache:
        """The cache without the `count` oldest keys and values."""
        room = self.keys.shape[2]
        if self.rolling or count < 0 or (isinstance(room, int) and count > room):
            raise LanguageError(
                "BAD_STATE",
                "a cache with a rolling window forgets by itself" if self.rolling else "a cache cannot forget so many",
                site=here(),
                expected=f"0 to {room} of a cache without a window",
                found=str(count),
            )
        needed().require(room, ">=", count, f"a cache of {room} cannot forget {count}")
        behind = {"low": (0,) * 4, "high": (0, 0, count, 0), "value": 0.0}
        keys, values = (emit("pad", x[:, :, count:], **behind) for x in (self.keys, self.values))
        return replace(self, keys=keys, values=values, length=emit("max", self.length - count, 0))

    def offload(self) -> KVCache:
        """Refused: there is one place alone."""
        raise unplaced("offload")

    def prefetch(self) -> KVCache:
        """Refused: there is one place alone."""
        raise unplaced("prefetch")

    def mask(self, queries: Value, causal: bool) -> Tensor:
        """Zero where a query may look, far below zero where nothing was stored yet or, if causal, what comes later."""
        room = self.keys.shape[2]
        column = emit("iota", shape=(1, 1, 1, room), axis=3, dtype=I64)
        end = emit("reshape", self.length, shape=(*self.length.shape, 1, 1, 1))
        count = queries.shape[2]
        row = emit("iota", shape=(1, 1, count, 1), axis=2, dtype=I64)
        last = end - count + row if causal else end - 1
        if self.rolling:  # the last place that was written in a column; below zero where there is none
            column = end - 1 - emit("mod", end - 1 - column + room, room)
        low = -60000.0 if queries.dtype.name == "f16" else -1e30
        zeros = emit("cast", emit("sub", column, column), dtype=queries.dtype)
        hidden = emit("gt", column, last)
        if self.rolling:
            hidden = emit("or", hidden, emit("lt", column, 0))
        return emit("select", hidden, zeros + low, 0.0)

    @property
    def kind(self) -> str:
        """Its name, and how it forgets: one cache never stands for another one."""
        return f"cache {self.incoming} {self.rolling}"

    def parts(self) -> Mapping[str, object]:
        """What is remembered."""
        return {"keys": self.keys, "values": self.values, "length": self.length}

    def around(self, parts: Mapping[str, object]) -> KVCache:
        """The cache that remembers something else."""
        keys, values, length = (cast(Value, parts[name]) for name in ("keys", "values", "length"))
        return replace(self, keys=keys, values=values, length=length)

    def derivative(self) -> KVCache:
        """The cache that holds derivatives, which are not remembered."""
        return replace(self, is_derivative=True)


def _same_type(old: Value, new: Value) -> None:
    if old.shape != new.shape or old.dtype != new.dtype:
        raise LanguageError(
            "STATE_CHANGES_TYPE",
            "the next state has another type than the one that came in",
            site=here(),
            expected=described(old),
            found=described(new),
        )


def state_of(spec: StateSpec, tensors: tuple[Tensor, ...], incoming: str) -> State | KVCache:
    """The state that a function's argument is, made of the tensors that came in."""
    if spec.kind == "cache":
        return KVCache(tensors[0], tensors[1], tensors[2], incoming, rolling_window.name in spec.suffixes)
    return State(tensors[0], incoming)
