"""New entries of a module that give derivatives of an old one: they share its constants.

Takes a module, an entry and names of inputs or constants; gives the module with one entry more. Invariant: the old
entries are unchanged; the new one takes and gives everything that the old one does, in the same order, and then more.
A name that the old entry has already, as in derivatives of derivatives, gets a number: `x_tangent_2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import chain, count

from bundle_format.errors import TesseraError
from tessera_build.ir.core.dims import substitute, symbol, symbols_of
from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import I64, Type, tensor
from tessera_build.ir.graph.autodiff.emit import Emit
from tessera_build.ir.graph.autodiff.transform import linearize, pushforward, zeros_like
from tessera_build.ir.graph.builder import ConstantPool, GraphBuilder, graph_nodes
from tessera_build.ir.graph.nodes import Module, StatePair
from tessera_build.ir.graph.sizes import data_sizes
from tessera_build.ir.graph.sweep import drop_dead


def with_grad(module: Module, entry: str, wrt: Sequence[str], name: str | None = None) -> Module:
    """The module with an entry, by default `<entry>_grad`, that also gives `<w>_gradient` for each of `wrt`.

    An entry that gives one floating-point number is differentiated as it is. Any other takes, for each floating-point
    output, a cotangent `<output>_cotangent` of its type, and gives the gradients of the sum of their products.
    """
    frame = _Frame(module, entry, name or f"{entry}_grad")
    to, function = frame.to, module.entries[entry]
    values = frame.values(wrt)
    floats = [i for i, r in enumerate(function.results) if function.types[r].dtype.is_float]
    numbers = [i for i in floats if len(floats) == 1 and not function.types[function.results[i]].rank]
    cotangents: list[int | None] = [None] * len(function.results)
    for position in () if numbers else floats:
        output = module.output_names[entry][position]
        cotangents[position] = frame.cotangent(f"{output}_cotangent", function.types[function.results[position]])
    found = linearize(to, function, frame.primals, values)
    cotangents = [None if c is None else frame.sized(c, o) for c, o in zip(cotangents, found.outputs, strict=True)]
    for position in numbers:
        cotangents[position] = to.scalar(1.0, found.outputs[position])
    given = found.transpose(cotangents)
    frame.outputs(found.outputs)
    emit = Emit(to)
    for w, value, gradient in zip(wrt, values, given, strict=True):
        frame.output(f"{w}_gradient", emit.zeros(function.types[value]) if gradient is None else gradient)
    return frame.finish(found.outputs)


def with_jvp(module: Module, entry: str, wrt: Sequence[str], name: str | None = None) -> Module:
    """The module with an entry, by default `<entry>_jvp`, that takes `<w>_tangent` for each of `wrt` and gives
    `<output>_tangent` for each floating-point output."""
    frame = _Frame(module, entry, name or f"{entry}_jvp")
    to, function = frame.to, module.entries[entry]
    given = {v: frame.input(f"{w}_tangent", function.types[v]) for w, v in zip(wrt, frame.values(wrt), strict=True)}
    tangents = [given.get(a) for a in function.args]
    constants = {v: t for v, t in given.items() if v not in function.args}
    outputs, changes = pushforward(to, function, frame.primals, tangents, constants)
    frame.outputs(outputs)
    for output, value, change in zip(module.output_names[entry], outputs, changes, strict=True):
        if to.type(value).dtype.is_float:
            frame.output(f"{output}_tangent", zeros_like(to, [change], [value])[0])
    return frame.finish(outputs)


@dataclass(slots=True)
class _Frame:
    """A new entry under construction, with the old one's inputs."""

    module: Module
    entry: str
    to: GraphBuilder
    primals: tuple[int, ...]

    def __init__(self, module: Module, entry: str, name: str) -> None:
        if entry not in module.entries or name in module.entries:
            raise TesseraError(
                "UNKNOWN_ENTRY" if entry not in module.entries else "DUPLICATE_NAME",
                f"an entry {name!r} cannot be derived from {entry!r}",
                expected=", ".join(module.entries),
                found=f"{entry}, {name}",
            )
        self.module, self.entry = module, entry
        self.to = GraphBuilder(name, module.dims, ConstantPool(module.constants, module.constant_names))
        function = module.entries[entry]
        names = zip(module.input_names[entry], function.args, strict=True)
        self.primals = tuple(self.to.input(n, function.types[a]) for n, a in names)

    def values(self, wrt: Sequence[str]) -> list[int]:
        """The values of the old entry that names of inputs and constants mean."""
        function = self.module.entries[self.entry]
        known = _constants(self.module, function) | dict(
            zip(self.module.input_names[self.entry], function.args, strict=True)
        )
        for w in wrt:
            if w not in known:
                near = get_close_matches(w, known)
                hint = f"did you mean {' or '.join(near)}?" if near else None
                raise TesseraError("UNKNOWN_NAME", f"{self.entry} has no input or constant {w!r}", hint=hint)
            if not function.types[known[w]].dtype.is_float:
                raise TesseraError(
                    "NOT_DIFFERENTIABLE",
                    f"{w} is not floating-point",
                    expected="a float element type",
                    found=str(function.types[known[w]]),
                )
        return [known[w] for w in wrt]

    def input(self, name: str, type_: Type) -> int:
        """A new input."""
        return self.to.input(_free(name, self.to.input_names), type_)

    def cotangent(self, name: str, type_: Type) -> int:
        """A new input of an output's type; what a run reads from data is a dim of its own in it."""
        read = data_sizes(self.module.entries[self.entry])
        dims = {n: symbol(f"{n}_cotangent") for e in type_.shape for n in symbols_of(e) if n in read}
        self.to.dims |= {str(dim): (0, None) for dim in dims.values()}
        return self.input(name, tensor(type_.dtype, *(substitute(e, dims) for e in type_.shape)))

    def sized(self, cotangent: int, output: int) -> int:
        """The cotangent in the output's type: extents that were read from data are demanded to be its own."""
        emit, given, wanted = Emit(self.to), self.to.type(cotangent).shape, self.to.type(output).shape
        for one, other in zip(given, wanted, strict=True):
            if one != other:
                sides = [emit.op("dimension", value=extent, dtype=I64) for extent in (one, other)]
                same, message = emit.op("eq", *sides), "a cotangent has the extents of its output"
                cotangent = emit.op("checked", cotangent, same, message=message)
        return emit.slice(cotangent, (0,) * len(wanted), wanted) if given != wanted else cotangent

    def output(self, name: str, value: int) -> None:
        """A new output."""
        self.to.output(_free(name, self.to.output_names), value)

    def outputs(self, values: Sequence[int]) -> None:
        """Give what the old entry gives."""
        for name, value in zip(self.module.output_names[self.entry], values, strict=True):
            self.to.output(name, value)

    def finish(self, outputs: Sequence[int]) -> Module:
        """The module with the new entry."""
        made, name, old = self.to.finish(), self.to.entry, self.module
        mapped = dict(zip(old.entries[self.entry].args, self.primals, strict=True))
        mapped |= dict(zip(old.entries[self.entry].results, outputs, strict=True))
        states = {name: tuple(StatePair(mapped[p.incoming], mapped[p.outgoing]) for p in old.states[self.entry])
                  } if self.entry in old.states else {}  # fmt: skip
        return drop_dead(
            replace(
                old,
                entries={**old.entries, **made.entries},
                constants={**old.constants, **made.constants},
                constant_names={**old.constant_names, **made.constant_names},
                dims={**old.dims, **made.dims},
                input_names={**old.input_names, **made.input_names},
                output_names={**old.output_names, **made.output_names},
                states={**old.states, **states},
                derivatives=old.derivatives | made.derivatives,
            )
        )


def _free(name: str, taken: Sequence[str]) -> str:
    """The name, with the first number from 2 on that makes it another."""
    return next(n for n in chain((name,), (f"{name}_{i}" for i in count(2))) if n not in taken)


def _constants(module: Module, function: Function) -> dict[str, int]:
    """The constants of a function by their names."""
    nodes = (n for n in graph_nodes(function) if n.op == "constant")
    named = ((module.constant_names.get(str(n.attributes["digest"]), ""), n.output) for n in nodes)
    return {name: value for name, value in named if name}
