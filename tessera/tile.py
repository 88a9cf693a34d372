"""The operations of the kernel language: one method for every node of Tile IR.

Takes the buffers, views and tiles of one trace; gives tiles, and records nodes. Invariant: nothing here says where or
how an operation runs — no threads, warps, lanes, registers or barriers; binding adds those later without changing
any result.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tessera.trace import Tracer
from tessera.values import Buffer, Tile, View, broadcast_shape, record_map
from tessera_build.ir.core.dims import Extent, symbol
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.scalar import ScalarBuilder, ScalarProgram
from tessera_build.ir.core.types import F32, I32, I64, DType, memref, tile
from tessera_build.ir.tile import nodes

LOWEST = -3.4028234663852886e38  # the lowest finite f32: a maximum that starts here keeps exp(x - max) free of NaN


class Carry:
    """Tiles that a loop hands from one turn to the next, as attributes: `state.total = state.total + x`."""

    __slots__ = ("_tiles",)
    _tiles: dict[str, Tile]

    def __init__(self, **tiles: Tile) -> None:
        object.__setattr__(self, "_tiles", tiles)

    def __getattr__(self, name: str) -> Tile:
        try:
            return self._tiles[name]
        except KeyError:
            raise AttributeError(f"this loop carries no tile {name!r}") from None

    def __setattr__(self, name: str, value: Tile) -> None:
        self._tiles[name] = value


class TileBuilder:
    """The `tile` argument of every kernel."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def alloc(self, dtype: DType, *shape: int) -> Buffer:
        """Scratch memory, private to one turn of the loops around it; its contents start undefined."""
        value = self._tracer.value(memref(dtype, *shape))
        self._tracer.append(nodes.Alloc(value))
        return Buffer(self._tracer, value)

    def load(self, view: View, pad: float = 0.0) -> Tile:
        """The tile that a view shows, `pad` outside its domain."""
        source = view.record()
        value = self._tracer.value(tile(view.buffer.dtype, *view.shape))
        self._tracer.append(nodes.Load(value, source, pad))
        return Tile(self._tracer, value)

    def store(self, view: View, value: Tile) -> None:
        """Write a tile through a view, inside its domain only."""
        if (view.shape, view.buffer.dtype) != (value.shape, value.dtype):
            raise self._tracer.error(
                "store of another shape or type",
                expected=f"{view.shape} {view.buffer.dtype}",
                found=f"{value.shape} {value.dtype}",
            )
        self._tracer.append(nodes.Store(view.record(), value.value))

    def copy(self, source: View, target: View, pad: float = 0.0) -> None:
        """Copy view to view, `pad` outside the source's domain."""
        if (source.shape, source.buffer.dtype) != (target.shape, target.buffer.dtype):
            raise self._tracer.error(
                "copy between different views", expected=str(source.shape), found=str(target.shape)
            )
        self._tracer.append(nodes.Copy(source.record(), target.record(), pad))

    def range(self, extent: Extent, step: int = 1, carry: Carry | None = None) -> Iterator[Extent]:
        """`for i in tile.range(...)`: i = 0, step, 2 * step, ... below extent. The Python body runs once.

        Tiles kept in `carry` pass from turn to turn. A loop of exactly one turn leaves no loop behind.
        """
        if isinstance(extent, int) and 0 < extent <= step:
            yield 0
            return
        name = self._tracer.loop_name()
        before = carry._tiles if carry else {}  # pyright: ignore[reportPrivateUsage]
        arguments = {key: Tile(self._tracer, self._like(t)) for key, t in before.items()}
        if carry is not None:
            object.__setattr__(carry, "_tiles", dict(arguments))
        with self._tracer.block() as body, self._tracer.loop(name, extent, step):
            yield symbol(name)
        after = carry._tiles if carry else {}  # pyright: ignore[reportPrivateUsage]
        self._check_carried(before, after)
        results = {key: Tile(self._tracer, self._like(t)) for key, t in before.items()}
        region = self._tracer.close(body, tuple(after[key].value for key in before))
        region = replace(region, args=tuple(a.value for a in arguments.values()))
        carried = tuple(t.value for t in before.values())
        self._tracer.append(nodes.For(tuple(r.value for r in results.values()), name, extent, step, carried, region))
        if carry is not None:
            object.__setattr__(carry, "_tiles", results)

    def _like(self, value: Tile) -> int:
        return self._tracer.value(self._tracer.types[value.value])

    def _check_carried(self, before: dict[str, Tile], after: dict[str, Tile]) -> None:
        for key, old in before.items():
            new = after[key]
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise self._tracer.error(
                    f"the loop changes the type of {key!r}",
                    expected=f"{old.shape} {old.dtype}",
                    found=f"{new.shape} {new.dtype}",
                )
        if extra := after.keys() - before.keys():
            raise self._tracer.error("a carried tile needs a value before the loop", found=", ".join(sorted(extra)))

    @contextmanager
    def when(
        self, left: Extent, relation: nodes.Relation, right: Extent, carry: Carry | None = None
    ) -> Generator[None]:
        """`with tile.when(i, "lt", n):` — the body runs only where the comparison of index expressions holds.

        Tiles kept in `carry` may change in the body; where it does not run they stay as they were.
        """
        before = dict(carry._tiles) if carry else {}  # pyright: ignore[reportPrivateUsage]
        with self._tracer.block() as body:
            yield
        after = carry._tiles if carry else {}  # pyright: ignore[reportPrivateUsage]
        self._check_carried(before, after)
        then = self._tracer.close(body, tuple(after[key].value for key in before))
        otherwise = Region((), (), tuple(t.value for t in before.values()))
        results = {key: Tile(self._tracer, self._like(t)) for key, t in before.items()}
        self._tracer.append(nodes.If(tuple(r.value for r in results.values()), left, relation, right, then, otherwise))
        if carry is not None:
            object.__setattr__(carry, "_tiles", results)

    def index(self, value: Tile, extent: Extent) -> Extent:
        """The only element of an integer tile as an index expression, until the end of the block around it.

        It must lie in 0..extent-1: where it does not, the kernel ends with the status INDEX_OUT_OF_RANGE.
        """
        if math.prod(value.shape) != 1 or value.dtype.kind not in {"signed", "unsigned"}:
            raise self._tracer.error(
                "an index is one integer", expected="an integer tile of one element", found=f"{value.shape}"
            )
        return symbol(self._tracer.let(value.value, extent))

    def element(self, buffer: Buffer, *indices: Extent) -> Tile:
        """One element of a buffer as a tile of shape (1,)."""
        return self.load(buffer[_one(indices)])

    def put(self, value: Tile, buffer: Buffer, *indices: Extent) -> None:
        """Store a tile of shape (1,) as one element of a buffer."""
        self.store(buffer[_one(indices)], value)

    def constant(self, value: float, dtype: DType) -> Tile:
        """One number as a tile of shape (1,)."""
        return self.full((1,), value, dtype)

    def number(self, value: Extent, dtype: DType = I64) -> Tile:
        """An index expression as a tile of shape (1,)."""
        return self.iota((1,), 0, value, dtype)

    def full(self, shape: Sequence[int], value: float, dtype: DType) -> Tile:
        """A tile of one constant."""
        builder = ScalarBuilder(())
        constant = builder.const(value, dtype)
        number = self._tracer.value(tile(dtype, *shape))
        self._tracer.append(nodes.Map(number, (), builder.finish(constant)))
        return Tile(self._tracer, number)

    def zeros(self, shape: Sequence[int], dtype: DType) -> Tile:
        """A tile of zeros."""
        return self.full(shape, 0.0, dtype)

    def iota(self, shape: Sequence[int], axis: int, offset: Extent = 0, dtype: DType = I32) -> Tile:
        """offset + i along `axis`, the same along the others."""
        value = self._tracer.value(tile(dtype, *shape))
        self._tracer.append(nodes.Iota(value, axis, offset))
        return Tile(self._tracer, value)

    def map(self, name: str, *operands: Tile) -> Tile:
        """Any scalar operation, elementwise: `tile.map("tanh", x)`."""
        builder = ScalarBuilder([o.dtype for o in operands])
        return record_map(self._tracer, operands, builder, builder.op(name, *range(len(operands))))

    def exp(self, x: Tile) -> Tile:
        """e to the x."""
        return self.map("exp", x)

    def maximum(self, a: Tile, b: Tile) -> Tile:
        """The larger one, elementwise."""
        return self.map("max", a, b)

    def where(self, condition: Tile, a: Tile, b: Tile) -> Tile:
        """`a` where the condition holds, else `b`."""
        return self.map("select", condition, a, b)

    def cast(self, x: Tile, dtype: DType) -> Tile:
        """The tile converted to another element type."""
        if x.dtype == dtype:
            return x
        builder = ScalarBuilder((x.dtype,))
        return record_map(self._tracer, (x,), builder, builder.cast(0, dtype))

    def bitcast(self, x: Tile, dtype: DType) -> Tile:
        """The bits of every element read as another type of the same width."""
        builder = ScalarBuilder((x.dtype,))
        return record_map(self._tracer, (x,), builder, builder.bitcast(0, dtype))

    def permute(self, x: Tile, *permutation: int) -> Tile:
        """The tile with its axes in another order."""
        value = self._tracer.value(tile(x.dtype, *(x.shape[p] for p in permutation)))
        self._tracer.append(nodes.Permute(value, x.value, permutation))
        return Tile(self._tracer, value)

    def dot(self, accumulator: Tile, a: Tile | View, b: Tile | View, spec: str, order: str = "seq") -> Tile:
        """accumulator + the sum over shared axes of a * b, e.g. `"mk,kn->mn"`; a and b may be views in any memory."""
        self._check_spec(accumulator, a, b, spec)
        left = a.record() if isinstance(a, View) else a.value
        right = b.record() if isinstance(b, View) else b.value
        value = self._like(accumulator)
        self._tracer.append(nodes.Contract(value, accumulator.value, left, right, spec, order))
        return Tile(self._tracer, value)

    def _check_spec(self, accumulator: Tile, a: Tile | View, b: Tile | View, spec: str) -> None:
        inputs, _, result = spec.partition("->")
        names = (*inputs.split(","), result)
        extents: dict[str, int] = {}
        for letters, shape in zip(names, (a.shape, b.shape, accumulator.shape), strict=False):
            if len(letters) != len(shape):
                raise self._tracer.error(f"{spec!r} does not fit", expected=f"rank {len(letters)}", found=str(shape))
            for letter, extent in zip(letters, shape, strict=True):
                if extents.setdefault(letter, extent) != extent:
                    raise self._tracer.error(
                        f"axis {letter!r} of {spec!r} differs", expected=str(extents[letter]), found=str(extent)
                    )

    def reduce(
        self,
        operands: Sequence[Tile],
        axes: Sequence[int],
        combine: ScalarProgram,
        identity: Sequence[float],
        order: str = "seq",
    ) -> tuple[Tile, ...]:
        """Combine tuples of elements along `axes`, which stay with extent 1."""
        shape = broadcast_shape(self._tracer, operands)
        kept = tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
        results = tuple(self._tracer.value(tile(o.dtype, *kept)) for o in operands)
        self._tracer.append(
            nodes.Reduce(results, tuple(o.value for o in operands), tuple(axes), combine, tuple(identity), order)
        )
        return tuple(Tile(self._tracer, r) for r in results)

    def sum(self, x: Tile, axis: int, order: str = "seq") -> Tile:
        """Sum along one axis."""
        return self._fold("add", x, axis, 0.0, order)

    def max(self, x: Tile, axis: int, order: str = "seq") -> Tile:
        """Maximum along one axis of a floating-point tile; of f32, never below `LOWEST`."""
        return self._fold("max", x, axis, _lowest(x.dtype), order)

    def largest(self, x: Tile, axis: int, order: str = "seq") -> Tile:
        """Maximum along one axis of a floating-point tile, NaN passed over; of f32, never below `LOWEST`."""
        builder = ScalarBuilder((x.dtype, x.dtype))
        program = builder.finish(builder.op("select", builder.op("gt", 1, 0), 1, 0))
        (result,) = self.reduce((x,), (axis,), program, (_lowest(x.dtype),), order)
        return result

    def _fold(self, name: str, x: Tile, axis: int, identity: float, order: str) -> Tile:
        builder = ScalarBuilder((x.dtype, x.dtype))
        (result,) = self.reduce((x,), (axis,), builder.finish(builder.op(name, 0, 1)), (identity,), order)
        return result


def _lowest(dtype: DType) -> float:
    return LOWEST if dtype.bits >= F32.bits else float("-inf")


def _one(indices: Sequence[Extent]) -> tuple[Extent | slice | None, ...]:
    """Indices of one element, the last one as a slice of length 1; for a buffer without axes, a new axis."""
    if not indices:
        return (None,)
    return (*indices[:-1], slice(indices[-1], indices[-1] + 1))
