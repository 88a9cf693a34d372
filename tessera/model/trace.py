"""One trace: a Graph IR function that grows while the author's Python runs once.

Takes annotations for inputs, parameters and captured tensors; gives a `GraphBuilder` whose nodes carry the author's
places. Invariant: every value of a trace has a site where one is known, and a function that is traced inside another
one reads outer values only through its own inputs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from tessera.errors import LanguageError
from tessera.model.annotation import TensorSpec
from tessera.model.numeric import Numeric, Policy
from tessera.model.site import Site, here
from tessera_build.ir.core.dims import Dim, DimRequest, Extent, Range, bounds, substitute, symbols_of
from tessera_build.ir.core.types import Type, tensor
from tessera_build.ir.graph.builder import ConstantPool, GraphBuilder
from tessera_build.ir.graph.nodes import Array
from tessera_build.ir.graph.owned import owned_digest


class Weight(Protocol):
    """What a trace knows of a parameter."""

    @property
    def name(self) -> str:
        """The name that it has in the bundle."""
        ...

    @property
    def spec(self) -> TensorSpec:
        """Shape and element type."""
        ...

    @property
    def site(self) -> Site | None:
        """Where the author made it."""
        ...

    @property
    def array(self) -> Array | None:
        """Its numbers; None while it is free."""
        ...

    @property
    def frozen(self) -> bool:
        """Whether it stays a constant where others are inputs."""
        ...


def numbers_of(weight: Weight) -> Array:
    """A parameter's numbers; an error where it has none."""
    array = weight.array
    if array is None:
        raise LanguageError(
            "PARAMETER_WITHOUT_VALUE",
            f"the parameter {weight.name or '(without a name)'} has no value",
            site=weight.site,
            expected="an initialiser, or a tensor of this name in the safetensors file beside the model",
            found=str(weight.spec),
            hint="op.tensor((D, H), init=init.normal(seed=1)), graph.load, or a .safetensors of the model's name",
        )
    return array


@dataclass(frozen=True, slots=True)
class Captured:
    """A value of an outer trace that an inner function reads: where it is there, and the input that it became."""

    trace: Trace
    value: int
    inside: int


@final
class Trace:
    """The state of one trace. `outer` is the trace around it, whose values it may capture."""

    def __init__(
        self,
        entry: str,
        dims: Mapping[str, DimRequest] | None = None,
        outer: Trace | None = None,
        free: bool = False,
        pool: ConstantPool | None = None,
    ) -> None:
        self.outer = outer
        self.requests: dict[str, DimRequest] = dict(dims or {}) if outer is None else outer.requests
        within = None if outer is None else outer.builder
        self.builder = GraphBuilder(entry, pool=pool or (within.pool if within else None), within=within)
        if outer is not None:
            self.builder.dims.update(outer.builder.dims)
        self.sites: dict[int, Site | None] = {}
        # Places by their text, of this trace and all around and inside of it: IR knows a file by its name alone.
        self.places: dict[str, Site] = {} if outer is None else outer.places
        self.policies: dict[int, Policy] = {}
        self.labels: dict[int, str] = {}  # names that the author gave: of inputs and parameters
        self.weights: dict[int, tuple[Weight, int]] = {}  # by identity: parameters are compared as objects
        self.captured: list[Captured] = []
        self.defined: dict[str, Site | None] = {}  # dimensions, and where they were named first
        self._free = free  # whether parameters are inputs

    def at(self, site: Site | None) -> AbstractContextManager[None]:
        """Give this place to every node made inside the `with`."""
        return self.builder.at(None if site is None else site.span)

    def extent(self, extent: Extent) -> Extent:
        """An extent of an annotation, with the dims that the build fixes."""
        fixed = {name: size for name, size in self.requests.items() if isinstance(size, int)}
        return substitute(extent, fixed)

    def input(self, name: str, spec: TensorSpec, site: Site | None) -> int:
        """A new input of the entry."""
        for dim in sorted(spec.symbols):
            self.define(dim, spec.limits().get(dim), spec.site or site)
        type_ = tensor(spec.dtype, *(self.extent(extent) for extent in spec.shape))
        value = self.builder.input(name, type_)
        return self.note(value, site, spec.numeric.policy, name)

    def define(self, name: str, limits: Range | None, site: Site | None) -> None:
        """Make a dimension known, with the narrower of the ranges that author and build state, else from 1 on."""
        self.defined.setdefault(name, site)
        request = self.requests.get(name)
        if isinstance(request, int):
            self._check_request(name, request, limits, site)
            return
        stated = [found for found in (self.builder.dims.get(name), limits, request) if found is not None]
        low = max((least for least, _ in stated if least is not None), default=1)
        high = min((most for _, most in stated if most is not None), default=None)
        if high is not None and low > high:
            raise LanguageError(
                "DIM_RANGE_EMPTY", f"no size of dimension {name} is allowed", site=site, found=f"{low}..{high}"
            )
        self.builder.dims[name] = (low, high)

    def _check_request(self, name: str, size: int, limits: Range | None, site: Site | None) -> None:
        low, high = limits or (None, None)
        if (low is not None and size < low) or (high is not None and size > high):
            raise LanguageError(
                "DIM_OUT_OF_RANGE",
                f"the build fixes dimension {name} outside its range",
                site=site,
                expected=f"{low}..{'' if high is None else high}",
                found=str(size),
            )

    def note(self, value: int, site: Site | None, policy: Policy | None = None, label: str = "") -> int:
        """Remember where a value came from, and under which policy."""
        self.sites.setdefault(value, site)
        if site is not None:
            self.places.setdefault(str(site), site)
        if policy is not None:
            self.policies[value] = policy
        if label:
            self.labels.setdefault(value, label)
        return value

    def bind(self, weight: Weight, value: int) -> None:
        """Let a parameter be this value from here on."""
        self.weights[id(weight)] = weight, value

    def weight(self, weight: Weight) -> int:
        """The value of a parameter: a constant of the entry, or an input where parameters are fed."""
        if id(weight) not in self.weights:
            self.bind(weight, self._new_weight(weight))
        return self.weights[id(weight)][1]

    def _new_weight(self, weight: Weight) -> int:
        if self.outer is not None:
            return self.capture(self.outer, self.outer.weight(weight))
        if self._free and not weight.frozen:
            return self.input(self._unused(weight.name or "parameter"), weight.spec, weight.site)
        with self.at(weight.site):
            value = self.builder.pooled(self._owned(numbers_of(weight), weight.name))
        return self.note(value, weight.site, weight.spec.numeric.policy, weight.name)

    def _unused(self, name: str) -> str:
        """The name, with a number where an input has it already."""
        taken = self.builder.input_names
        return next(word for word in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if word not in taken)

    def own(self, value: int) -> int:
        """A value that the function computes: an input or a constant that is a result is copied."""
        node = self.builder.producer(value)
        if node is not None and node.op != "constant":
            return value
        with self.at(self.sites.get(value)):
            return self.builder.op("reshape", value, shape=self.builder.type(value).shape)

    def _owned(self, array: Array, name: str) -> str:
        """The digest that a parameter is kept under."""
        digest = owned_digest(array, name or str(len(self.weights)))
        self.builder.pool.arrays.setdefault(digest, array)
        if name:
            self.builder.pool.names.setdefault(digest, name)
        return digest

    def capture(self, trace: Trace, value: int) -> int:
        """The input of this function through which it reads a value of an outer trace."""
        for known in self.captured:
            if known.trace is trace and known.value == value:
                return known.inside
        type_, number = trace.builder.type(value), trace.builder.is_number(value)
        inside = self.builder.input(f"captured{len(self.captured)}", type_, number=number)
        self.note(inside, trace.sites.get(value), trace.policies.get(value), trace.labels.get(value, ""))
        self.captured.append(Captured(trace, value, inside))
        return inside

    def within(self, trace: Trace) -> bool:
        """Whether `trace` is one of those around this one."""
        outer = self.outer
        while outer is not None and outer is not trace:
            outer = outer.outer
        return outer is not None

    def require(self, left: Extent, relation: str, right: Extent, message: str) -> None:
        """Demand a relation (==, >=) of extents: judged now where the ranges decide it, else a guard of the entry."""
        left, right = self.extent(left), self.extent(right)
        low, high = bounds(left - right, self.builder.dims)
        if (low is not None and low >= 0) if relation == ">=" else left == right:
            return
        impossible = high is not None and high < 0
        if impossible or (relation == "==" and low is not None and low > 0):
            raise LanguageError(
                "DIMS_IMPOSSIBLE",
                message,
                site=here(),
                expected=f"{left} {relation} {right}",
                found=self.ranges_text(left, right),
            )
        if self.outer is not None:
            self.outer.require(left, relation, right, message)
        else:
            with self.at(here()):
                self.builder.guard(left, relation, right, message)

    def ranges_text(self, *extents: Extent) -> str:
        """The ranges of the dimensions in these extents, for messages."""
        names = sorted({name for extent in extents for name in symbols_of(extent)})
        texts: list[str] = []
        for name in names:
            low, high = self.builder.dims.get(name, (1, None))
            texts.append(f"{name} in {low}..{'' if high is None else high}")
        return ", ".join(texts) or " and ".join(str(extent) for extent in extents)


_CURRENT: ContextVar[Trace | None] = ContextVar("tessera_trace", default=None)


def current() -> Trace | None:
    """The trace that is growing; None outside of one."""
    return _CURRENT.get()


def needed() -> Trace:
    """The trace that is growing; raises where there is none."""
    trace = current()
    if trace is None:
        raise LanguageError(
            "NO_TRACE",
            "this is only defined while a model is traced",
            site=here(),
            hint="put it into a function under @graph.module, or into the forward method of a graph.Module",
        )
    return trace


@contextmanager
def tracing(trace: Trace) -> Generator[Trace]:
    """Make `trace` the one that grows."""
    token = _CURRENT.set(trace)
    try:
        yield trace
    finally:
        _CURRENT.reset(token)


def constant_of(trace: Trace, array: Array, site: Site | None) -> int:
    """A constant of the author's; numpy's own element types only."""
    try:
        with trace.at(site):
            return trace.note(trace.builder.constant(np.asarray(array)), site)
    except KeyError as error:
        raise LanguageError(
            "UNKNOWN_DTYPE", "an array's elements have no element type here", site=site, found=str(array.dtype)
        ) from error


def specification(type_: Type, policy: Policy | None, site: Site | None) -> TensorSpec:
    """The annotation that a value of this type would have."""
    return TensorSpec(type_.shape, Numeric(type_.dtype, policy or Policy()), (), site)


def is_symbolic(extents: tuple[Extent, ...]) -> bool:
    """Whether an extent is known only at run time."""
    return any(isinstance(extent, Dim) for extent in extents)
