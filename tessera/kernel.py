"""`@kernel`: a Python function over tiles becomes a function of Tile IR.

Takes the types of the buffers by name, and a body `(tile, buffer, ...)`; gives an unbound Tile IR function. Invariant:
the kernel language is Tile IR with Python syntax — tracing adds nothing and binds nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tessera.fusion import FuseMaps
from tessera.tile import TileBuilder
from tessera.trace import Tracer
from tessera.values import Buffer
from tessera_build.ir.core.dims import symbols_of
from tessera_build.ir.core.node import Function, Node, walk
from tessera_build.ir.core.types import Type
from tessera_build.ir.tile.nodes import For, If, Iota, Let, View

KernelBody = Callable[..., None]


def kernel(**buffers: Type) -> Callable[[KernelBody], Function]:
    """Decorate a kernel's body with its buffers' types; the decorated name becomes the `Function`.

    Buffers are `memref` types, whose symbolic extents are the function's `dims`, in order of first appearance; symbols
    that only index expressions use follow in alphabetical order. What the kernel writes comes last by convention.

        @kernel(x=memref(F32, n), out=memref(F32, n))
        def double(tile: TileBuilder, x: Buffer, out: Buffer) -> None:
            for i in tile.range(n, 64):
                tile.store(out[i : i + 64], tile.load(x[i : i + 64]) * 2.0)
    """

    def decorate(body: KernelBody) -> Function:
        dims = _dims(buffers)
        tracer = Tracer(dims)
        arguments = {name: Buffer(tracer, tracer.value(kind)) for name, kind in buffers.items()}
        body(TileBuilder(tracer), **arguments)
        locations = dict(tracer.locations)
        nodes = FuseMaps(tracer.types, locations).run(tracer.finish())
        return Function(
            name=body.__name__,
            args=tuple(b.value for b in arguments.values()),
            nodes=nodes,
            results=(),
            types=tracer.types,
            attributes={"dims": (*dims, *_index_dims(nodes, dims))},
            locations=locations,
        )

    return decorate


def _dims(buffers: dict[str, Type]) -> tuple[str, ...]:
    """Symbols in order of first appearance; several in one extent come in alphabetical order."""
    found: dict[str, None] = {}
    for kind in buffers.values():
        for extent in kind.shape:
            found.update(dict.fromkeys(sorted(symbols_of(extent))))
    return tuple(found)


def _index_dims(nodes: tuple[Node, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Symbols of index expressions that no buffer's shape names."""
    found: set[str] = set()
    loops: set[str] = set()
    for node in walk(nodes):
        match node:
            case For(index=index, extent=extent) | Let(index=index, extent=extent):
                loops.add(index)
                found |= symbols_of(extent)
            case If(left=left, right=right):
                found |= symbols_of(left) | symbols_of(right)
            case View(offsets=offsets):
                found = found.union(*(symbols_of(offset) for offset in offsets))
            case Iota(offset=offset):
                found |= symbols_of(offset)
            case _:
                pass
    return tuple(sorted(found - loops - set(known)))
