"""Derivatives as the author asks for them: of functions, and of values of the trace that grows.

Takes functions or tensors; gives tensors that are ordinary parts of the trace, so that everything composes to any
order. Invariant: what a result does not depend on has a derivative of zeros, in its own shape and type; an op without
a derivative is an error at the author's line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from tessera.derive.inner import Inner, as_arguments, expect_trace, scalar_loss, traced
from tessera.derive.place import author_place, transposed_inside
from tessera.errors import LanguageError
from tessera.model.expect import expect_functions, matched
from tessera.model.filled import full_like
from tessera.model.parameter import Parameter
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit, lift, trace_of
from tessera.model.trace import Trace
from tessera.model.tree import leaves, rebuild, rebuild_derivatives
from tessera_build.ir.core.types import F32
from tessera_build.ir.graph.autodiff import transform

Function = Callable[..., object]
_WANTED = "tensors of this trace, or parameters"


def backward(loss: object, *, wrt: object) -> object:
    """Gradients of one number by tensors, in the nesting of `wrt`; those of parameters are named after them."""
    return _backward(loss, wrt, "graph.backward")


def _backward(loss: object, wrt: object, name: str) -> object:
    number = scalar_loss(loss, name)
    trace = trace_of((number,))
    targets = [_target(leaf) for _, leaf in leaves(wrt)]
    values = [target.value_in(trace) for target in targets]
    scale = number.policy.scale
    with author_place(trace, name):
        output = number.value_in(trace)
        found = _gradients(trace, output, values, scale)
    results = [
        _named(_filled(trace, gradient, target, scale), target) for gradient, target in zip(found, targets, strict=True)
    ]
    return rebuild_derivatives(wrt, results)


def _gradients(trace: Trace, output: int, values: Sequence[int], scale: float) -> list[int | None]:
    """One sweep back for all; a value that others are computed from is swept to by itself, as if it were given."""
    builder = trace.builder
    seed = builder.scalar(scale, output)
    roots = [v for v in values if (node := builder.producer(v)) is None or node.op == "constant"]
    found = dict(zip(roots, transform.backward(builder, [output], [seed], roots), strict=True)) if roots else {}
    for value in values:
        if value not in found:
            (found[value],) = transform.backward(builder, [output], [seed], [value])
    return [found[value] for value in values]


def _target(leaf: object) -> Value:
    if not isinstance(leaf, Value) or not leaf.dtype.is_float:
        raise LanguageError(
            "NOT_DIFFERENTIABLE",
            "a derivative is asked by something that is no floating-point tensor",
            site=here(),
            expected=_WANTED,
            found=described(leaf) if isinstance(leaf, Value) else repr(leaf)[:200],
        )
    return leaf


def _filled(trace: Trace, value: int | None, like: Value, scale: float = 1.0) -> Tensor:
    """A derivative as a tensor: zeros where there is none."""
    if value is None:
        return full_like(like, 0)
    tensor = Tensor(trace, trace.note(value, here(), like.policy))
    return tensor if scale == 1.0 else emit("mul", tensor, 1.0 / scale)


def _named(gradient: Tensor, target: Value) -> Tensor:
    name = target.name if isinstance(target, Parameter | Tensor) else ""
    name = name or (target.trace.labels.get(target.value, "") if isinstance(target, Tensor) else "")
    return Tensor(gradient.trace, gradient.value, f"grad.{name}") if name else gradient


def jvp(value: object, *, wrt: object, tangents: object = None, dir: object = None) -> object:  # noqa: A002
    """The derivative of traced tensors along a direction of `wrt`, by default ones: du/dx of a pointwise u(x).

    `tangents` and `dir` are two names of the direction.
    """
    if tangents is not None and dir is not None:
        raise LanguageError(
            "BAD_ARGUMENT",
            "graph.jvp is given two directions: tangents and dir are the same",
            site=here(),
            expected="tangents or dir",
        )
    return _along(value, wrt, dir if tangents is None else tangents, "graph.jvp")


def _along(value: object, wrt: object, given: object, name: str) -> object:
    """The change of tensors along a direction, by default ones."""
    trace = trace_of([leaf for _, leaf in leaves(value)])
    targets = [_target(leaf) for _, leaf in leaves(wrt)]
    directions = [full_like(t, 1) for t in targets] if given is None else _directions(wrt, given)
    outputs = [_target(leaf) for _, leaf in leaves(value)]
    with author_place(trace, name):
        changes = {t.value_in(trace): d.value_in(trace) for t, d in zip(targets, directions, strict=True)}
        found = transform.forward(trace.builder, [o.value_in(trace) for o in outputs], changes)
    return rebuild(value, [_filled(trace, f, o) for f, o in zip(found, outputs, strict=True)])


def hvp(value: object, *, wrt: object, dir: object = None, inputs: Sequence[object] | None = None) -> object:  # noqa: A002
    """The Hessian times a direction. Of a function's value at `inputs`, or of a tensor of the trace.

    Of one number: forward over reverse, in the nesting of `wrt`. Of a tensor that depends on `wrt` point by point, the
    second derivative along the direction, by default ones.
    """
    if callable(value) and not isinstance(value, Value):
        value = value(*(inputs or ()))
    if isinstance(value, Value) and value.shape == ():
        return _along(_backward(value, wrt, "graph.hvp"), wrt, dir, "graph.hvp")
    return _along(_along(value, wrt, dir, "graph.hvp"), wrt, dir, "graph.hvp")


def forward(function: Function, primals: Sequence[object], *, tangents: Sequence[object]) -> tuple[object, object]:
    """The function's results and their change along the tangents of its arguments.

    `tangents`: one for each argument, in its nesting, with None for whatever is no tensor: numbers are constants. Those
    of arguments without any tensor may be left out.
    """
    expect_functions("graph.forward", "graph.forward(f, (x,), tangents=(t,))", function)
    for given in (primals, tangents):
        if not isinstance(given, tuple | list):
            raise LanguageError(
                "BAD_ARGUMENT",
                "graph.forward takes arguments and tangents in tuples",
                site=here(),
                expected="graph.forward(f, (x,), tangents=(t,))",
                found=described(given) if isinstance(given, Value) else repr(given)[:200],
            )
    expect_trace("graph.forward", primals)
    inner = traced(function, primals)
    inner.expect_read(inner.inputs, "graph.forward")
    along = tuple(tangent if leaves(tangent) else None for tangent in tangents)
    directions = _directions(tuple(inner.arguments if len(along) == len(primals) else inner.moving), along)
    with author_place(inner.outer, "graph.forward"):
        changes = dict(zip(inner.inputs, (d.value_in(inner.outer) for d in directions), strict=True))
        given = [changes.get(arg) for arg in inner.function.args]
        outputs, found = transform.pushforward(inner.outer.builder, inner.function, inner.primals, given)
    results = inner.results(outputs)
    filled = [_filled(inner.outer, value, result) for value, result in zip(found, results, strict=True)]
    return inner.rebuilt(outputs), rebuild_derivatives(inner.result, filled)


def vjp(function: Function, *primals: object) -> tuple[object, Callable[[object], object]]:
    """The function's results, and what gives the gradients of the arguments from cotangents of the results.

    The cotangents are nested as the results; each argument that holds tensors has a gradient of its own nesting, and
    one alone has no tuple around it. Python numbers are constants, which have none. Gradients may be asked for inside
    other functions, which may be transformed themselves.
    """
    expect_functions("graph.vjp", "graph.vjp(f, x)", function)
    expect_trace("graph.vjp", primals)
    inner = traced(function, primals)
    inner.expect_read(inner.inputs, "graph.vjp")
    trace = inner.outer
    with author_place(trace, "graph.vjp"):
        outputs, transposer = transform.pullback(trace.builder, inner.function, inner.primals, inner.inputs)

    def back(cotangents: object) -> object:
        to = trace_of(())
        for output in outputs:
            Tensor(trace, output).value_in(trace)  # what was computed in a branch is not there after it
        seeds = _cotangents(inner, outputs, cotangents, to)
        with author_place(to, "graph.vjp"):
            found = transposer(seeds) if to is trace else transposed_inside(transposer, trace, to, seeds)
        targets = [leaf for _, leaf in leaves(inner.moving) if isinstance(leaf, Value)]
        filled = [_filled(to, f, t) for f, t in zip(found, targets, strict=True)]
        gradients = as_arguments(rebuild_derivatives(inner.moving, filled))
        return gradients[0] if len(gradients) == 1 else tuple(gradients)

    return inner.rebuilt(outputs), back


def _cotangents(inner: Inner, outputs: Sequence[int], cotangents: object, trace: Trace) -> list[int]:
    """Cotangents in a trace, one for each result, in the nesting of these and of their types."""
    message = "the cotangents are nested differently from the results"
    given = matched(inner.rebuilt(outputs), cotangents, "BAD_ARGUMENT", message)
    kinds = [inner.outer.builder.type(output).dtype for output in outputs]
    return [lift(trace, leaf, kind, here()) for leaf, kind in zip(given, kinds, strict=True)]


def grad(
    function: Function,
    wrt: int | Parameter | Sequence[int | Parameter] | Mapping[str, Parameter] = 0,
    *,
    value: bool = False,
) -> Function:
    """The function that gives the gradients of another one's number: by arguments at places, or by parameters.

    The gradient of an argument is nested as it, with None for whatever is no tensor; those by `wrt` are nested as it:
    a dict such as `net.trainable()` gives a dict, a list a tuple. `value`: it gives (number, gradients). Keyword
    arguments are passed on and are never differentiated by.
    """
    expect_functions("graph.grad", "graph.grad(f)(x)", function)
    chosen = _chosen(wrt)

    def gradients(*arguments: object, **named: object) -> object:
        expect_trace("graph.grad", arguments)
        primals, parameters = _numbers(arguments, chosen), [c for c in chosen if isinstance(c, Parameter)]
        inner = traced(function, primals, named, parameters)
        results = [leaf for _, leaf in leaves(inner.result)]
        scale = scalar_loss(results[0] if len(results) == 1 else results, "graph.grad").policy.scale
        asked = [_asked(inner, choice, parameters) for choice in chosen]
        nesting, places = [tree for tree, _ in asked], [place for _, found in asked for place in found]
        inner.expect_read(places, "graph.grad")
        likes = [_target(leaf) for _, leaf in leaves(nesting)]
        builder = inner.outer.builder
        with author_place(inner.outer, "graph.grad"):
            outputs, transposer = transform.pullback(builder, inner.function, inner.primals, places)
            found = transposer([builder.scalar(scale, outputs[0])])
        filled = [_filled(inner.outer, f, like, scale) for f, like in zip(found, likes, strict=True)]
        made = as_arguments(rebuild_derivatives(nesting, filled))
        result = rebuild(tuple(wrt) if isinstance(wrt, list) else wrt, made)
        return (inner.rebuilt(outputs), result) if value else result

    return gradients


def _chosen(wrt: object) -> list[int | Parameter]:
    """What gradients are asked by."""
    found = [None] if wrt is None else [leaf for _, leaf in leaves(wrt)]
    if all(isinstance(choice, int | Parameter) for choice in found):
        return cast("list[int | Parameter]", found)
    raise LanguageError(
        "BAD_ARGUMENT",
        "graph.grad is asked by something that is neither a place nor a parameter",
        site=here(),
        expected="the number of an argument, a parameter, or several of these in a tuple, list or dict",
        found=repr(found)[:200],
    )


def _numbers(arguments: Sequence[object], chosen: Sequence[int | Parameter]) -> list[object]:
    """The arguments, with Python's floats at the places that are asked by as tensors of the type of the first tensor,
    else f32; the others are constants.
    """
    tensors = [leaf for _, leaf in leaves(arguments) if isinstance(leaf, Value)]
    trace, like = trace_of(tensors), tensors[0].dtype if tensors else F32
    places = {choice for choice in chosen if isinstance(choice, int)}

    def lifted(argument: object) -> object:
        found = [leaf for _, leaf in leaves(argument)]
        return rebuild(
            argument, [Tensor(trace, lift(trace, x, like, here())) if isinstance(x, float) else x for x in found]
        )

    return [lifted(argument) if i in places else argument for i, argument in enumerate(arguments)]


def _asked(inner: Inner, choice: int | Parameter, parameters: Sequence[Parameter]) -> tuple[object, Sequence[int]]:
    """What a gradient is asked by, tensors outside of the function in their nesting, and what they are inside of it."""
    if isinstance(choice, Parameter):
        inside = inner.inputs[len(inner.inputs) - len(parameters) + [id(p) for p in parameters].index(id(choice))]
        return Tensor(inner.outer, inner.primal(inside)), (inside,)
    counts = [len(leaves(argument)) for argument in inner.arguments]
    if not 0 <= choice < len(counts) or not counts[choice]:
        raise LanguageError(
            "NOT_DIFFERENTIABLE",
            f"there is no floating-point argument at place {choice}",
            site=here(),
            expected=f"one of {[place for place, count in enumerate(counts) if count]}",
            found=f"{len(counts)} arguments",
        )
    first = sum(counts[:choice])
    return inner.arguments[choice], inner.inputs[first : first + counts[choice]]


def _directions(wrt: object, given: object) -> list[Value]:
    """Directions for tensors, in their nesting, of their shapes and types; numbers are the same everywhere."""
    targets = [_target(leaf) for _, leaf in leaves(wrt)]
    message = "the directions are nested differently from the tensors that they belong to"
    found = matched(wrt, given, "BAD_ARGUMENT", message)
    return [_direction(target, leaf) for target, leaf in zip(targets, found, strict=True)]


def _direction(target: Value, leaf: object) -> Value:
    if isinstance(leaf, int | float):
        return full_like(target, leaf)
    trace = trace_of(())
    direction = Tensor(trace, lift(trace, leaf, target.dtype, here()))
    if direction.shape != target.shape or direction.dtype != target.dtype:
        raise LanguageError(
            "TANGENT_MISMATCH",
            "a direction has another type than the tensor it belongs to",
            site=here(),
            expected=described(target),
            found=described(direction),
        )
    return direction
