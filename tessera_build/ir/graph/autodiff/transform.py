"""The doors of differentiation: functions pushed forward, linearised, pulled back, inside a builder.

Takes a builder, a function of the same symbols whose constants the builder's pool holds, and values for its arguments;
emits ordinary nodes into the builder, so that whatever comes out can be differentiated again. Invariant: a tangent or
cotangent that is None is zero and costs nothing; what a result does not depend on has the gradient None.

    outputs, changes = pushforward(builder, function, primals, tangents)
    outputs, transposer = pullback(builder, function, primals)
    gradients = transposer([builder.scalar(1.0, outputs[0])])      # one for each argument, None for zero
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from bundle_format.errors import TesseraError
from tessera_build.ir.core.node import Function, Node
from tessera_build.ir.core.structure import captured
from tessera_build.ir.core.types import Type
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.autodiff.program import Recorder
from tessera_build.ir.graph.autodiff.walk import Walk
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import GraphNode

Transposer = Callable[[Values], list[int | None]]


@dataclass(frozen=True, slots=True)
class Linearised:
    """A function at one point: its results, and the program that is its derivative there."""

    outputs: tuple[int, ...]
    program: Recorder
    inputs: tuple[int, ...]  # linear values, one for each value that was asked for
    tangents: tuple[int | None, ...]  # linear values, one for each result; None where it depends on no input

    @property
    def residuals(self) -> tuple[int, ...]:
        """The values of the builder's that the program's nodes read, in order."""
        read = (v for step in self.program.steps for v in step.inputs if v >= 0)
        return tuple(dict.fromkeys(read))

    def transpose(self, cotangents: Values) -> list[int | None]:
        """Cotangents of the inputs from those of the results: emitted where the builder stands now."""
        _check_cotangents(self.program.to, self.outputs, cotangents)
        return self.program.transposed(self.tangents, cotangents, self.inputs)


def pushforward(
    builder: GraphBuilder,
    function: Function,
    primals: Sequence[int],
    tangents: Values,
    constants: Mapping[int, int] | None = None,
) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """The function's results and their tangents; `constants` gives tangents to constants of the function."""
    walk = _walk(builder, function, primals, None)
    for arg, tangent in zip(function.args, tangents, strict=True):
        if tangent is not None:
            _check_same("a tangent", builder.type(tangent), function.types[arg])
            walk.tangents[arg] = tangent
    walk.tangents.update(constants or {})
    walk.nodes(function.nodes)
    return tuple(walk.value(r) for r in function.results), tuple(walk.tangents_of(function.results))


def linearize(
    builder: GraphBuilder, function: Function, primals: Sequence[int], wrt: Collection[int] | None = None
) -> Linearised:
    """Emit the function's results and record its derivative by `wrt`: arguments or constants of the function.

    Without `wrt`, by all its arguments that are floating-point; its `inputs` are then those of all arguments.
    """
    recorder = Recorder(builder)
    walk = _walk(builder, function, primals, recorder)
    chosen = function.args if wrt is None else tuple(wrt)
    return _linearised(walk, recorder, chosen, function.results)


def pullback(
    builder: GraphBuilder, function: Function, primals: Sequence[int], wrt: Collection[int] | None = None
) -> tuple[tuple[int, ...], Transposer]:
    """The function's results, and what gives gradients from their cotangents, one for each of `wrt` in order."""
    found = linearize(builder, function, primals, wrt)
    return found.outputs, found.transpose


def backward(builder: GraphBuilder, outputs: Sequence[int], cotangents: Values, wrt: Sequence[int]) -> list[int | None]:
    """Gradients of values that a builder has made, by others that it made before; no node is written again.

    Loops between them are: what their way back reads is kept by a second loop. Only the function's own block can be
    open.
    """
    if builder.nested:
        message = "gradients inside a region are taken of functions, which are traced there"
        raise TesseraError("NOT_DIFFERENTIABLE", message, hint="graph.grad(f, wrt=[W])(x), or graph.vjp")
    recorder = Recorder(builder)
    walk = Walk(builder, _leading_to(builder.function(), outputs), recorder, written=True)
    found = _linearised(walk, recorder, tuple(wrt), outputs)
    return found.transpose(cotangents)


def forward(builder: GraphBuilder, outputs: Sequence[int], tangents: Mapping[int, int]) -> list[int | None]:
    """Tangents of values that a builder has made, from those of others that it made before; no node is written again.

    Loops between them are. Only the function's own block can be open.
    """
    if builder.nested:
        message = "tangents inside a region are taken of functions, which are traced there"
        raise TesseraError("NOT_DIFFERENTIABLE", message, hint="graph.forward of a function")
    walk = Walk(builder, _leading_to(builder.function(), outputs), written=True)
    for value, tangent in tangents.items():
        _check_same("a tangent", builder.type(tangent), builder.type(value))
        walk.tangents[value] = tangent
    walk.nodes(walk.function.nodes)
    return walk.tangents_of(outputs)


def _leading_to(function: Function, outputs: Sequence[int]) -> Function:
    """The function without nodes that no output reads: those need no derivative, and may have none."""
    wanted, kept = set(outputs), list[Node]()
    for node in reversed(function.nodes):
        assert isinstance(node, GraphNode)
        if wanted.intersection(node.outputs) or node.op == "sizes":
            wanted.update((*node.inputs, *captured(node.regions)))
            kept.append(node)
    return replace(function, nodes=tuple(kept[::-1]))


def _walk(builder: GraphBuilder, function: Function, primals: Sequence[int], recorder: Recorder | None) -> Walk:
    if len(primals) != len(function.args):
        raise TesseraError(
            "BAD_ARGUMENTS",
            f"{function.name} takes another number of arguments",
            expected=str(len(function.args)),
            found=str(len(primals)),
        )
    walk = Walk(builder, function, recorder)
    for arg, primal in zip(function.args, primals, strict=True):
        _check_same("an argument", builder.type(primal), function.types[arg])
        walk.values[arg] = primal
    return walk


def _linearised(walk: Walk, recorder: Recorder, wrt: Sequence[int], outputs: Sequence[int]) -> Linearised:
    inputs = tuple(recorder.value(walk.type(v)) for v in wrt)
    walk.tangents.update({v: i for v, i in zip(wrt, inputs, strict=True) if walk.type(v).dtype.is_float})
    walk.nodes(walk.function.nodes)
    results = tuple(walk.value(r) for r in outputs)
    return Linearised(results, recorder, inputs, tuple(walk.tangents_of(outputs)))


def _check_cotangents(builder: GraphBuilder, outputs: Sequence[int], cotangents: Values) -> None:
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None:
            _check_same("a cotangent", builder.type(cotangent), builder.type(output))


def _check_same(what: str, found: Type, expected: Type) -> None:
    if found != expected:
        raise TesseraError("TYPE_MISMATCH", f"{what} has another type", expected=str(expected), found=str(found))


def zeros_like(builder: GraphBuilder, values: Values, like: Sequence[int]) -> list[int]:
    """The values, with tensors of zeros for those that are None."""
    emit = Emit(builder)
    return [v if v is not None else emit.zeros(builder.type(t)) for v, t in zip(values, like, strict=True)]
