"""Rules for elementwise ops: neutral elements, cheaper equals, constants on the right.

Takes a site; gives the value that replaces it, or None. Invariant: results are equal (`==`) to the old ones for every
operand that is not an infinity or NaN; most rules keep every bit, the exceptions say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tessera_build.ir.core.node import Function
from tessera_build.ir.core.types import BOOL, F32, Type
from tessera_build.ir.graph.builder import graph_nodes
from tessera_build.ir.graph.nodes import Array, GraphNode
from tessera_build.ir.graph.ops.op import dtype_attribute
from tessera_build.ir.graph.sweep import Rule, Site

COMMUTATIVE = frozenset({"add", "mul", "max", "min", "eq", "ne", "and", "or", "xor"})
# op -> the constant right operand that leaves the left one alone. x + 0 loses the sign of a zero, nothing else.
NEUTRAL: Mapping[str, float] = {
    "add": 0,
    "sub": 0,
    "mul": 1,
    "div": 1,
    "pow": 1,
    "or": False,
    "xor": False,
    "shl": 0,
    "shr": 0,
}
SELF_INVERSE = frozenset({"neg", "not"})
IDEMPOTENT = frozenset({"abs", "floor", "ceil", "round", "sign"})


def constant_to_the_right(site: Site) -> Sequence[int] | None:
    """op(c, x) → op(x, c) for commutative ops, so that other rules look for constants in one place."""
    if site.node.op not in COMMUTATIVE:
        return None
    left, right = site.inputs
    if site.to.array(left) is None or site.to.array(right) is not None:
        return None
    return [site.to.op(site.node.op, right, left)]


def drop_neutral(site: Site) -> Sequence[int] | None:
    """x + 0, x - 0, x * 1, x / 1, pow(x, 1), x and True, ... → x, broadcast where the constant was the larger one."""
    constant = site.to.array(site.inputs[1]) if len(site.inputs) == 2 else None
    if constant is None:
        return None
    every_bit = np.bitwise_not(np.zeros((), constant.dtype)) if site.node.op == "and" else None
    neutral = NEUTRAL.get(site.node.op, every_bit)
    if neutral is None or not _all(constant, neutral):
        return None
    if _keeps_type(site):
        return [site.inputs[0]]
    return [site.to.op("broadcast_to", site.inputs[0], shape=site.old.types[site.node.output].shape)]


def subtract_constant(site: Site) -> Sequence[int] | None:
    """x - c → x + (-c), exactly, for floats."""
    if site.node.op != "sub" or not site.to.type(site.inputs[0]).dtype.is_float:
        return None
    constant = site.to.array(site.inputs[1])
    if constant is None:
        return None
    return [site.to.op("add", site.inputs[0], site.to.constant(np.negative(constant)))]


def divide_by_power_of_two(site: Site) -> Sequence[int] | None:
    """x / c → x * (1/c) where 1/c is exact, hence the result too."""
    if site.node.op != "div" or not site.to.type(site.inputs[0]).dtype.is_float:
        return None
    constant = site.to.array(site.inputs[1])
    if constant is None or not _exact_reciprocals(constant):
        return None
    reciprocal = (1.0 / constant.astype(np.float64)).astype(constant.dtype)
    return [site.to.op("mul", site.inputs[0], site.to.constant(reciprocal))]


def divide_by_constants() -> Rule:
    """x / c → x * (1/c): rounds once more, but products are issued every cycle and a division blocks its unit.

    Not for one divisor of 32 bits: its quotients are products already, and round once (`graph_to_schedule/quotients`).
    Not where the quotient becomes a whole number, as in quantisation: what lies half way must stay there, and 41 / 41
    must not fall below 1. Nor for one element, where nothing is gained: the scale of a tensor quantised by its own
    range has the bits that its definition gives, or values half way between two steps go to the other one. Nor for
    sums, which are few beside what they add up: the mean of equal numbers is that number, and a normalisation of them
    magnifies every other one 300 times. Nor for floats below 32 bits, whose 1/3 is off by as much as a result may be.
    The rule is one for each sweep: it remembers what the old function rounds.
    """
    rounded: list[frozenset[int]] = []

    def divide_by_constant(site: Site) -> Sequence[int] | None:
        if site.node.op != "div" or not _is_wide(site.to.type(site.inputs[0])):
            return None
        constant = site.to.array(site.inputs[1])
        if constant is None or not _moderate(constant.astype(np.float64)):
            return None
        if constant.size == 1 and constant.dtype == F32.numpy:
            return None
        if _single(site.old.types[site.node.output]) or _is_sum(site.to.producer(site.inputs[0])):
            return None
        if not rounded:
            rounded.append(rounded_values(site.old))
        if site.node.output in rounded[0]:
            return None
        reciprocal = (1.0 / constant.astype(np.float64)).astype(constant.dtype)
        return [site.to.op("mul", site.inputs[0], site.to.constant(reciprocal))]

    return divide_by_constant


def _is_wide(type_: Type) -> bool:
    return type_.dtype.is_float and type_.dtype.bits >= F32.bits


def _single(type_: Type) -> bool:
    return all(dim == 1 for dim in type_.shape)


def _is_sum(node: GraphNode | None) -> bool:
    return node is not None and node.op == "reduce" and node.attributes["kind"] == "sum"


def rounded_values(function: Function) -> frozenset[int]:
    """Values that become whole numbers: what lies half way between two must stay there."""
    return frozenset(v for n in graph_nodes(function) if _rounds(function, n) for v in n.inputs)


def _rounds(function: Function, node: GraphNode) -> bool:
    """Whether the operation turns its operand into a whole number."""
    if node.op == "cast":
        return not function.types[node.output].dtype.is_float
    return node.op in ("round", "floor", "ceil")


def small_power(site: Site) -> Sequence[int] | None:
    """pow(x, 2) → x * x; pow(x, 0.5) → sqrt(x), which differs at -inf and -0; pow(x, -1) → 1 / x."""
    if site.node.op != "pow" or not site.to.type(site.inputs[0]).dtype.is_float:
        return None
    exponent = site.to.array(site.inputs[1])
    if exponent is None or not _keeps_type(site):
        return None
    base = site.inputs[0]
    if _all(exponent, 2):
        return [site.to.op("mul", base, base)]
    if _all(exponent, 0.5):
        return [site.to.op("sqrt", base)]
    return [site.to.op("div", site.to.scalar(1, base), base)] if _all(exponent, -1) else None


def repeated(site: Site) -> Sequence[int] | None:
    """neg(neg(x)) → x; abs(abs(x)) → abs(x)."""
    if site.node.op not in SELF_INVERSE | IDEMPOTENT:
        return None
    inner = site.to.producer(site.inputs[0])
    if inner is None or inner.op != site.node.op:
        return None
    return [inner.inputs[0] if site.node.op in SELF_INVERSE else site.inputs[0]]


def drop_cast(site: Site) -> Sequence[int] | None:
    """A cast to the type that the operand has already."""
    if site.node.op != "cast" or site.to.type(site.inputs[0]).dtype != dtype_attribute(site.node.attributes, "dtype"):
        return None
    return [site.inputs[0]]


def same_choice(site: Site) -> Sequence[int] | None:
    """select(c, x, x) → x, and a select whose condition is one constant truth value."""
    if site.node.op != "select":
        return None
    condition, yes, no = site.inputs
    constant = site.to.array(condition)
    result = site.old.types[site.node.output]
    chosen = yes if yes == no else None
    if constant is not None and constant.size and site.to.type(condition).dtype == BOOL:
        chosen = yes if bool(constant.all()) else no if not bool(constant.any()) else chosen
    return [chosen] if chosen is not None and site.to.type(chosen) == result else None


def _keeps_type(site: Site) -> bool:
    return site.to.type(site.inputs[0]) == site.old.types[site.node.output]


def _all(array: Array, number: float | Array) -> bool:
    return bool(np.all(array == np.asarray(number).astype(array.dtype)))


def _exact_reciprocals(array: Array) -> bool:
    mantissas, _ = np.frexp(array.astype(np.float64))
    return bool(np.all(np.abs(mantissas) == 0.5)) and _moderate(array.astype(np.float64))


def _moderate(array: NDArray[np.float64]) -> bool:
    """Whether reciprocals are normal numbers of every float type that we compute in (float16 reaches 2^-14)."""
    return bool(np.all((np.abs(array) >= 2.0**-13) & (np.abs(array) <= 2.0**13)))


ARITHMETIC: tuple[Callable[[Site], Sequence[int] | None], ...] = (
    constant_to_the_right,
    drop_neutral,
    subtract_constant,
    divide_by_power_of_two,
    small_power,
    repeated,
    drop_cast,
    same_choice,
)
