"""Derivatives of elementwise ops.

Takes sites of ops on operands that broadcast; gives their rows of the table. Invariant: a tangent or cotangent has the
shape of what it belongs to. Where operands of `max` or `min` are equal, each has one half, whatever else has a tangent,
and one beside a number that the model states has nothing: the derivative of a rectifier at zero is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tessera_build.ir.graph.autodiff.derivative import Derivative, NotDifferentiable, Site, first, flat
from tessera_build.ir.graph.autodiff.emit import Emit, Values
from tessera_build.ir.graph.ops.op import dtype_attribute

# The factor by which a tangent is multiplied, from the operand or from the result.
Factor = Callable[[Emit, int], int]


def _by_operand(factor: Factor) -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        return [site.emit.op("mul", first(tangents), factor(site.emit, site.inputs[0]))]

    return Derivative(jvp)


def _by_result(factor: Factor) -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        return [site.emit.op("mul", first(tangents), factor(site.emit, site.outputs[0]))]

    return Derivative(jvp)


def _plus(e: Emit, x: int, number: float) -> int:
    return e.op("add", x, e.scalar(number, x))


def _from_one(e: Emit, x: int) -> int:
    return e.op("sub", e.scalar(1.0, x), x)


def _one_less_square(e: Emit, x: int) -> int:
    """1 - x², without the cancellation of the square near one."""
    return e.op("mul", _from_one(e, x), _plus(e, x, 1.0))


def _square(e: Emit, x: int) -> int:
    return e.op("mul", x, x)


def _inverse(e: Emit, x: int) -> int:
    return e.op("div", e.scalar(1.0, x), x)


def _bell(e: Emit, x: int) -> int:
    return e.scaled(e.op("exp", e.op("neg", _square(e, x))), 2 / math.sqrt(math.pi))


def _rsqrt(e: Emit, y: int) -> int:
    return e.scaled(e.op("mul", y, _square(e, y)), -0.5)


def _acosh(e: Emit, x: int) -> int:
    return e.op("mul", e.op("rsqrt", _plus(e, x, -1.0)), e.op("rsqrt", _plus(e, x, 1.0)))


def _of_sigmoid(e: Emit, x: int) -> int:
    """sigmoid(x) sigmoid(-x), each to its own digits.

    y (1 - y) loses them where the unit is certain: in f32 it is zero from x = 18 on. That of ONNX's Sigmoid has none at
    -14 either, since its results are exact to 1.7e-7 only (docs/adr/0013).
    """
    return e.op("mul", e.op("sigmoid", x), e.op("sigmoid", e.op("neg", x)))


OF_OPERAND: Mapping[str, Factor] = {
    "log": _inverse,
    "erf": _bell,
    "sin": lambda e, x: e.op("cos", x),
    "cos": lambda e, x: e.op("neg", e.op("sin", x)),
    "asin": lambda e, x: e.op("rsqrt", _one_less_square(e, x)),
    "acos": lambda e, x: e.op("neg", e.op("rsqrt", _one_less_square(e, x))),
    "atan": lambda e, x: _inverse(e, _plus(e, _square(e, x), 1.0)),
    "sinh": lambda e, x: e.op("cosh", x),
    "cosh": lambda e, x: e.op("sinh", x),
    "asinh": lambda e, x: e.op("rsqrt", _plus(e, _square(e, x), 1.0)),
    "acosh": _acosh,
    "atanh": lambda e, x: _inverse(e, _one_less_square(e, x)),
    "abs": lambda e, x: e.op("sign", x),
    "sigmoid": _of_sigmoid,
    "logistic": _of_sigmoid,
}
OF_RESULT: Mapping[str, Factor] = {
    "exp": lambda _, y: y,
    "sqrt": lambda e, y: e.op("div", e.scalar(0.5, y), y),
    "rsqrt": _rsqrt,
    "tanh": _one_less_square,
    "tan": lambda e, y: _plus(e, _square(e, y), 1.0),
}


def _sum_of(site: Site, terms: list[int | None]) -> Values:
    """The sum of the terms that are there, in the shape of the result."""
    e, shape = site.emit, site.emit.shape(site.outputs[0])
    found = [t for t in terms if t is not None]
    total = found[0] if len(found) == 1 else e.op("add", found[0], found[1])
    return [e.broadcast(total, shape)]


def _back(site: Site, operand: int, cotangent: int) -> int | None:
    """A cotangent of the result as that of a linear operand."""
    return site.emit.unbroadcast(cotangent, site.type(operand).shape) if site.linear(operand) else None


def _add() -> Derivative:
    return Derivative(
        lambda site, tangents: _sum_of(site, list(tangents)),
        lambda site, cotangents: [_back(site, i, first(cotangents)) for i in range(2)],
    )


def _sub() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        a, b = tangents
        e = site.emit
        if a is not None and b is not None:
            return [e.broadcast(e.op("sub", a, b), e.shape(site.outputs[0]))]
        return _sum_of(site, [a, None if b is None else e.op("neg", b)])

    def transpose(site: Site, cotangents: Values) -> Values:
        c = first(cotangents)
        right = _back(site, 1, c)
        return [_back(site, 0, c), None if right is None else site.emit.op("neg", right)]

    return Derivative(jvp, transpose)


def _mul() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        (a, b), (da, db), e = site.inputs, tangents, site.emit
        if da is not None and db is not None and a == b and da == db:
            return [e.op("mul", da, e.scaled(a, 2.0))]
        terms = [None if da is None else e.op("mul", da, b), None if db is None else e.op("mul", a, db)]
        return _sum_of(site, terms)

    def transpose(site: Site, cotangents: Values) -> Values:
        c, e = first(cotangents), site.emit
        if site.linear(0):
            return [_back(site, 0, e.op("mul", c, site.inputs[1])), None]
        return [None, _back(site, 1, e.op("mul", site.inputs[0], c))]

    return Derivative(jvp, transpose)


def _div() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        (da, db), b, e = tangents, site.inputs[1], site.emit
        left = None if da is None else e.op("div", da, b)
        right = None
        if db is not None:
            right = e.op("neg", e.op("mul", db, e.op("div", site.outputs[0], b)))
        return _sum_of(site, [left, right])

    def transpose(site: Site, cotangents: Values) -> Values:
        return [_back(site, 0, site.emit.op("div", first(cotangents), site.inputs[1])), None]

    return Derivative(jvp, transpose)


def _remainder(rounded: Callable[[Emit, int], int]) -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        (a, b), (da, db), e = site.inputs, tangents, site.emit
        turns = None if db is None else e.op("neg", e.op("mul", db, rounded(e, e.op("div", a, b))))
        return _sum_of(site, [da, turns])

    return Derivative(jvp)


def _truncated(e: Emit, x: int) -> int:
    return e.op("mul", e.op("sign", x), e.op("floor", e.op("abs", x)))


def _pow() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        (x, p), (dx, dp), e = site.inputs, tangents, site.emit
        terms: list[int | None] = [None, None]
        if dx is not None and e.number(p) != 0:
            terms[0] = e.op("mul", dx, _power_slope(e, x, p))
        if dp is not None:
            y, zero = site.outputs[0], e.scalar(0.0, x)
            none = e.op("and", e.op("eq", x, zero), e.op("ge", p, zero))
            log = e.op("log", e.op("select", none, e.scalar(1.0, x), x))
            terms[1] = e.op("mul", dp, e.op("mul", y, log))
        return _sum_of(site, terms) if terms != [None, None] else [None]

    return Derivative(jvp)


def _power_slope(e: Emit, x: int, p: int) -> int:
    """p xᵖ⁻¹."""
    known = e.number(p)
    if known == 2:
        return e.scaled(x, 2.0)
    if known is not None:
        return e.scaled(e.op("pow", x, e.scalar(known - 1, x)), known)
    slope, zero = e.op("mul", p, e.op("pow", x, _plus(e, p, -1.0))), e.scalar(0.0, x)
    # x ** 0 is one everywhere, at zero too, where the power before it has no value.
    return e.op("select", e.op("eq", p, zero), zero, slope)


def _extremum(better: str) -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        (a, b), (da, db), e = site.inputs, tangents, site.emit
        (strict,) = _sum_of(
            site,
            [
                None if da is None else e.where(e.op(better, a, b), da),
                None if db is None else e.where(e.op(better, b, a), db),
            ],
        )
        moved = [t for t in (da, db) if t is not None]
        if strict is None or (len(moved) == 1 and e.to.is_number(b if db is None else a)):
            return [strict]
        both = moved[0] if len(moved) == 1 else e.op("add", *moved)
        return [e.op("add", strict, e.where(e.op("eq", a, b), e.scaled(both, 0.5)))]

    return Derivative(jvp)


def _select() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        e, condition, (da, db) = site.emit, site.inputs[0], tangents[1:]
        branches = [d if d is not None else e.scalar(0.0, site.outputs[0]) for d in (da, db)]
        return [e.broadcast(e.op("select", condition, *branches), e.shape(site.outputs[0]))]

    def transpose(site: Site, cotangents: Values) -> Values:
        e, condition, c = site.emit, site.inputs[0], first(cotangents)
        zero = e.scalar(0.0, c)
        left = _back(site, 1, e.op("select", condition, c, zero)) if site.linear(1) else None
        right = _back(site, 2, e.op("select", condition, zero, c)) if site.linear(2) else None
        return [None, left, right]

    return Derivative(jvp, transpose)


def _cast() -> Derivative:
    def jvp(site: Site, tangents: Values) -> Values:
        return [site.again(first(tangents)) if dtype_attribute(site.attributes, "dtype").is_float else None]

    def transpose(site: Site, cotangents: Values) -> Values:
        return [site.emit.op("cast", first(cotangents), dtype=site.type(0).dtype)]

    return Derivative(jvp, transpose)


def _neg() -> Derivative:
    return Derivative(
        lambda site, tangents: [site.again(first(tangents))], lambda site, cotangents: [site.again(first(cotangents))]
    )


JUMPS = ("floor", "ceil", "round", "sign", "isnan", "eq", "ne", "lt", "le", "gt", "ge")
INTEGERS = ("not", "and", "or", "xor", "shl", "shr")

ELEMENTWISE: Mapping[str, Derivative | NotDifferentiable] = {
    **{name: _by_operand(factor) for name, factor in OF_OPERAND.items()},
    **{name: _by_result(factor) for name, factor in OF_RESULT.items()},
    **{name: flat() for name in JUMPS},
    **{name: NotDifferentiable("it works on bits, which do not change a little") for name in (*INTEGERS, "bitcast")},
    "neg": _neg(),
    "add": _add(),
    "sub": _sub(),
    "mul": _mul(),
    "div": _div(),
    "mod": _remainder(lambda e, x: e.op("floor", x)),
    "rem": _remainder(_truncated),
    "pow": _pow(),
    "max": _extremum("gt"),
    "min": _extremum("lt"),
    "select": _select(),
    "cast": _cast(),
}
