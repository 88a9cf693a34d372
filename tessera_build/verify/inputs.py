"""What a model is verified on: sizes of its symbolic dims, and inputs from recorded seeds.

Takes: the module as a frontend made it.
Gives: sizes that its ranges and guards allow, and one array per input.
Invariant: the same module, sizes and seed give the same arrays; an integer input that selects from an axis stays
within that axis.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import Extent, evaluate, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.scalar import COMPARISONS
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.builder import graph_nodes, guard_symbols
from tessera_build.ir.graph.mixing import token_dims
from tessera_build.ir.graph.nodes import Array, Module
from tessera_build.ir.graph.ops.op import axis_of, extents_of
from tessera_build.ir.graph.ops.shapes import count
from tessera_build.ir.graph.ops.sizes import UNBOUNDED
from tessera_build.ir.graph.reference import shape_at
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.verify.demands import Refusal, why_no_sizes
from tessera_build.verify.feasible import conditions_of, domain, find_sizes

Sizes = Mapping[str, int]

# Small ones first: verification should cost little. Odd ones meet ragged edges, the even ones serve models that halve
# their extents several times; 1 comes last, because it hides mistakes in strides.
_SMALL = (3, 5, 7, 2, 12, 17, 16, 33, 32, 48, 65, 64, 96, 100, 128, 224, 256, 320, 512, 1)
# The second set is larger than a register tile, so that kernels for full tiles run too.
_LARGE = (33, 49, 65, 17, 48, 64, 96, 12, 128, 7, 224, 320, 5, 640)
# Tokens are more than the fewest whose products are computed in halves: those kernels run too.
_TOKENS = 53
_CHEAP_BYTES = 256 << 20  # of all values of the model together, so that the reference stays within a second or two
_ATTEMPTS = 300
ATTEMPTS = 60  # to find inputs that fit each other where data make shapes
SEED_STEP = 1000  # seeds that are further apart make other kinds of numbers for sizes: these spans, one after another
_SHRINKING = 4  # sizes of floats that are tried where a model checks what it has found
_SPANS = (None, (-1, 1), None, (0, 3), (-1, 2))
# What the first flag of each row is: where all are masked, scores are large and equal but for roundings.
_FIRST_FLAGS = (None, 1, 0)
FLAGGED_ATTEMPTS = len(_FIRST_FLAGS)
_PERIOD = len(_SPANS)  # after so many, all begins again
_USUAL_SIZE = 6  # of sizes that are computed from integers without a bound


def choose_sizes(module: Module) -> tuple[Sizes, ...]:
    """Two sets of sizes for the symbolic dims, a small and a larger one; one empty set for a model without any.

    Fewer where ranges and guards allow only one set, or only one that is cheap; none where no set was found.
    """
    shapes = _Shapes.of(module)
    if not shapes.names:
        return ({},)
    small = shapes.choose(_SMALL) or shapes.cheapest(_SMALL) or shapes.found(_SMALL)
    if small is None:
        return ()
    large = shapes.with_tokens().choose(_LARGE, small) or shapes.choose(_LARGE, small) or shapes.found(_LARGE, small)
    return (small,) if large is None else (small, large)


def why_none(module: Module) -> Refusal:
    """Why `choose_sizes` gives none for a module."""
    return _Shapes.of(module).refusal()


@dataclass(frozen=True, slots=True, eq=False)
class _Shapes:
    """What sizes must satisfy and what they cost: each distinct shape once, with the bytes of an element of all.

    Dims in `tokens` are no smaller than that many, as far as their ranges allow.
    """

    module: Module
    names: tuple[str, ...]
    extents: frozenset[Extent]
    element_bytes: Mapping[tuple[Extent, ...], int]
    tokens: frozenset[str] = frozenset()

    @classmethod
    def of(cls, module: Module) -> "_Shapes":
        types = [type_ for function in module.entries.values() for type_ in function.types.values()]
        inputs = [f.types[a] for f in module.entries.values() for a in f.args]
        names = sorted({name for type_ in inputs for extent in type_.shape for name in symbols_of(extent)})
        bytes_of: Counter[tuple[Extent, ...]] = Counter()
        # Extents over sizes that a run reads from data, or over a loop's index, have no value yet.
        for type_ in types:
            if all(symbols_of(extent) <= set(names) for extent in type_.shape):
                bytes_of[type_.shape] += type_.dtype.bytes
        extents = frozenset(e for shape in bytes_of for e in shape if not isinstance(e, int))
        return cls(module, tuple(names), extents, bytes_of)

    def with_tokens(self) -> "_Shapes":
        """The same, with as many tokens as are computed together."""
        functions = self.module.entries.values()
        return replace(self, tokens=frozenset(name for function in functions for name in token_dims(function)))

    def choose(self, candidates: tuple[int, ...], other: Sizes | None = None) -> Sizes | None:
        """The first proposal that is allowed, cheap, and differs from `other`."""
        for sizes in self._proposals(candidates):
            if sizes != other and self._allowed(sizes) and self._bytes(sizes) <= _CHEAP_BYTES:
                return sizes
        return None

    def cheapest(self, candidates: tuple[int, ...]) -> Sizes | None:
        """Of the allowed proposals the one with the smallest values: all are dear, and a proof should fit memory."""
        allowed = (sizes for sizes in self._proposals(candidates) if self._allowed(sizes))
        return min(allowed, key=self._bytes, default=None)

    def found(self, candidates: tuple[int, ...], other: Sizes | None = None) -> Sizes | None:
        """Sizes that satisfy all that is asked of them, where those that are proposed do not; another set is cheap."""
        domains = {name: domain(self.module.dims.get(name, (1, None)), candidates) for name in self.names}
        sizes = find_sizes(conditions_of(self.module, self.names, sorted(self.extents, key=str)), domains)
        dear = sizes is not None and other is not None and self._bytes(sizes) > _CHEAP_BYTES
        return None if sizes == other or dear else sizes

    def refusal(self) -> Refusal:
        """Why no sizes were found."""
        return why_no_sizes(self.module, self.names, sorted(self.extents, key=str))

    def _proposals(self, candidates: tuple[int, ...]) -> Iterator[Sizes]:
        """All dims alike, then every dim by itself."""
        for size in candidates:
            yield {name: self._clipped(size, name) for name in self.names}
        generator = np.random.default_rng(0)
        for _ in range(_ATTEMPTS if len(self.names) > 1 else 0):
            picks = generator.choice(candidates, len(self.names))
            yield {name: self._clipped(int(pick), name) for name, pick in zip(self.names, picks, strict=True)}

    def _clipped(self, size: int, name: str) -> int:
        low, high = self.module.dims.get(name, (1, None))
        size = max(size, 0 if low is None else low, _TOKENS if name in self.tokens else 0)
        return size if high is None else min(size, high)

    def _allowed(self, sizes: Sizes) -> bool:
        """Whether the guards hold and every value of the model has elements."""
        for guard in self.module.guards:
            left, relation, right, _ = guard
            if not guard_symbols(guard) <= sizes.keys():
                continue
            sides = evaluate(left, sizes), evaluate(right, sizes)
            if not (sides[0] == sides[1] if relation == "==" else sides[0] >= sides[1]):
                return False
        return all(evaluate(extent, sizes) > 0 for extent in self.extents)

    def _bytes(self, sizes: Sizes) -> int:
        """All values of the model together."""
        return sum(
            element * math.prod(evaluate(extent, sizes) for extent in shape)
            for shape, element in self.element_bytes.items()
        )


def make_inputs(module: Module, entry: str, sizes: Sizes, seed: int) -> dict[str, Array]:
    """One array per input: normal floats of magnitude 1 or the module's, indices within the axis they select from,
    small other integers.

    Integers that divide are at least 1; those compared with many numbers at once, as a one-hot code is made, are of
    as many kinds. Those that sizes are computed from are within the sizes' bounds, or few and small, as the seed says.
    Where the model checks what it has found, other seeds give smaller floats: iterations come to their end near zero.
    Where nothing that is computed decides how a run ends, other seeds set the first flag of each row.
    """
    sizes = {name: size for name, size in sizes.items() if name in module.dims}
    span = _SPANS[seed // SEED_STEP % _PERIOD]
    function = module.entries[entry]
    shrinking = 0.25 ** (seed // SEED_STEP % _SHRINKING) if checks(function) else 1.0
    divisors = set(_reaching(function, _divisors(function)))
    lengths, masks, magnitudes = size_limits(function), _masks(function), module.magnitudes.get(entry, {})
    limits = lengths | _kinds(function) | index_limits(function)
    generator = np.random.default_rng(seed)
    flag = _FIRST_FLAGS[seed // SEED_STEP % _PERIOD % FLAGGED_ATTEMPTS] if attempts_for(function) == 1 else None
    made: dict[str, Array] = {}
    for name, value in zip(module.input_names[entry], function.args, strict=True):
        bounds = [evaluate(extent, sizes) for extent in limits.get(value, ()) if symbols_of(extent) <= sizes.keys()]
        type_ = function.types[value]
        array = random_array(generator, type_, shape_at(type_, sizes), min(bounds, default=None))
        if flag is not None and not bounds and _is_flag(type_):
            array[..., :1] = flag
        size = shrinking * magnitudes.get(name, 1.0)
        if size != 1.0 and type_.dtype.is_float:
            array = np.asarray(np.multiply(array, size)).astype(array.dtype)
        if value in masks and type_.dtype.kind in ("signed", "unsigned"):
            made[name] = np.ones_like(array)
            continue
        if span is not None and value in lengths and type_.dtype.kind == "signed":
            made[name] = np.asarray(generator.integers(*span, array.shape)).astype(array.dtype)
            continue
        made[name] = np.maximum(array, array.dtype.type(1)) if value in divisors else array
    return made


def has_flags(function: Function) -> bool:
    """Whether an input may be a mask."""
    return any(_is_flag(function.types[value]) for value in function.args)


def _is_flag(type_: Type) -> bool:
    return type_.rank > 0 and type_.dtype.name in ("bool", "i32", "i64")


def checks(function: Function) -> bool:
    """Whether a run may end because of what it has found."""
    return any(node.op == "checked" for node in graph_nodes(function))


def attempts_for(function: Function) -> int:
    """How many seeds are tried: one where nothing that is computed decides whether a run comes to its end."""
    return ATTEMPTS if data_sizes(function) or checks(function) else 1


def accepted_inputs(
    module: Module, entry: str, sizes: Sizes, seed: int, run: Callable[[dict[str, Array]], object]
) -> dict[str, Array]:
    """Inputs that `run` accepts, which is asked only where data make shapes; raises its last refusal."""
    attempts = attempts_for(module.entries[entry])
    for attempt in range(attempts):
        inputs = make_inputs(module, entry, sizes, seed + SEED_STEP * attempt)
        try:
            if attempts > 1:
                run(inputs)
        except TesseraError:
            if attempt == attempts - 1:
                raise
            continue
        return inputs
    raise AssertionError("the last attempt returns or raises")


def random_array(generator: np.random.Generator, type_: Type, shape: tuple[int, ...], limit: int | None) -> Array:
    """Values of one type; `limit` is the end of the range of an index."""
    dtype = type_.dtype
    if dtype.is_float:
        return np.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(dtype.numpy)
    if dtype.kind == "bool":
        return np.asarray(generator.integers(0, 2, shape)).astype(np.bool_)
    # Masks and flags are the usual integers that select nothing; 8-bit ones are pixels and quantised values.
    low = -128 if dtype.name == "i8" and limit is None else 0
    high = limit if limit is not None else {"u8": 256, "i8": 128}.get(dtype.name, 2)
    return np.asarray(generator.integers(low, max(high, low + 1), shape)).astype(dtype.numpy)


def index_limits(function: Function) -> dict[int, tuple[Extent, ...]]:
    """For each argument that reaches the indices of a gather, or rows of a cache: the extents that it selects from."""
    found: dict[int, tuple[Extent, ...]] = {}
    for node in graph_nodes(function):
        if node.op == "scatter_rows" and not node.attributes["circular"]:
            room, more = (function.types[value].shape[2] for value in node.inputs[:2])
            for value in _reaching(function, [node.inputs[2]], sums=False):
                found[value] = (*found.get(value, ()), room - more + 1)
        if node.op in ("gather", "gather_elements"):
            data = function.types[node.inputs[0]]
            extent = data.shape[axis_of(node.attributes, data.rank)]
            for value in _reaching(function, [node.inputs[1]], sums=False):
                found[value] = (*found.get(value, ()), extent)
    return found


def _masks(function: Function) -> frozenset[int]:
    """Arguments that reach the indices of a gather through sums only."""
    chosen = [node.inputs[1] for node in graph_nodes(function) if node.op in ("gather", "gather_elements")]
    return frozenset(_reaching(function, chosen)) - frozenset(_reaching(function, chosen, sums=False))


def size_limits(function: Function) -> dict[int, tuple[Extent, ...]]:
    """For each argument that sizes are computed from, through integers alone: what it should stay below."""
    found: dict[int, tuple[Extent, ...]] = {}
    for node in graph_nodes(function):
        if node.op == "sizes":
            uppers = [e + 1 for e in extents_of(node.attributes, "uppers") if e != UNBOUNDED]
            reached = _reaching(function, [node.inputs[0]])
            found |= {value: (*found.get(value, ()), *(uppers or [_USUAL_SIZE])) for value in reached}
    return found


def _kinds(function: Function) -> dict[int, tuple[Extent, ...]]:
    """For each argument that is compared with numbers that no argument decides: how many those are, if several."""
    found: dict[int, tuple[Extent, ...]] = {}
    for node in graph_nodes(function):
        if node.op not in COMPARISONS:
            continue
        sides = [_reaching(function, [value], sums=False) for value in node.inputs]
        for own, other, numbers in ((*sides, node.inputs[1]), (*reversed(sides), node.inputs[0])):
            total = count(function.types[numbers].shape)
            if own and not other and total != 1:
                found |= {value: (total,) for value in own if value not in found}
    return found


def _divisors(function: Function) -> list[int]:
    return [node.inputs[1] for node in graph_nodes(function) if node.op in {"div", "floordiv", "mod"}]


def _reaching(function: Function, values: list[int], *, sums: bool = True) -> list[int]:
    """The arguments that `values` are computed from, through integers alone.

    Without `sums`, not through those: an index that counts a mask's ones says nothing of how large they may be.
    """
    producers = {output: node for node in graph_nodes(function) for output in node.outputs}
    waiting, seen = list(values), set[int]()
    while waiting:
        value = waiting.pop()
        if value not in seen and not function.types[value].dtype.is_float:
            seen.add(value)
            node = producers.get(value)
            if node is not None and (sums or node.attributes.get("kind") != "sum"):
                waiting += node.inputs
    return [value for value in function.args if value in seen]
