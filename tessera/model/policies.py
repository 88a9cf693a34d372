"""What a numeric policy demands of an op, and how the op is written so that it is kept.

Takes the policies of an op's operands; gives a `Plan`: the types that the op computes in, and where its results are cut
off. Invariant: by themselves sums run in f32 for f32 and everything narrower, and in the operands' own type else; what
asks for another type gets conversions around the op, and what cannot be kept is refused where it is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from tessera.errors import LanguageError
from tessera.model.numeric import LARGEST, NO_POLICY, Policy
from tessera.model.site import Site
from tessera_build.ir.core.node import Region
from tessera_build.ir.core.types import BOOL, F32, F64, I32, I64, STORAGE_FLOATS, DType
from tessera_build.ir.graph.builder import GraphBuilder
from tessera_build.ir.graph.nodes import Attribute

SUMMING = frozenset({"matmul", "conv", "reduce", "reduce_window", "softmax", "attention", "cumulate"})
# What keeps numbers as they are, or makes no new one that could overflow or be rounded.
_MOVING = frozenset(
    [
        "reshape",
        "transpose",
        "broadcast_to",
        "concat",
        "slice",
        "pad",
        "gather",
        "gather_elements",
        "repeat",
        "select",
        "max",
        "min",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "neg",
        "abs",
        "sign",
        "cast",
        "bitcast",
        "isnan",
        "constant",
        "dimension",
        "iota",
        "random",
        "if",
        "stated",
        "linear_solve",
        "checked",
        "checkpoint",
        "loop",
        "sizes",
    ]
)


_INTEGER_OPS = frozenset({"add", "sub", "mul", "div", "mod"})  # whose results for twice as many bits are exact
_ADDING = ("add", "mul")  # reductions of scatters
_COMPARING = ("max", "min")  # reductions that add nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """How an op is written under a policy.

    `inside` is the type that it computes in, `through` one that its results pass, `stored` the type of its results,
    `bounds` where they are cut off; None is the op as it is.
    """

    policy: Policy = NO_POLICY
    like: DType | None = None
    inside: DType | None = None
    through: DType | None = None
    stored: DType | None = None
    bounds: tuple[float, float] | None = None


def native_accumulator(dtype: DType) -> DType:
    """The type in which compiled code sums numbers of this type."""
    return F32 if dtype.is_float and dtype != F64 else dtype


def plan_of(
    op: str, policies: Sequence[Policy], attributes: Mapping[str, Attribute], like: DType | None, site: Site | None
) -> Plan:
    """The plan for an op whose operands are under these policies; raises where they disagree or cannot be kept."""
    joined = NO_POLICY
    for policy in policies:
        if joined.accumulate and policy.accumulate and joined.accumulate != policy.accumulate:
            raise LanguageError(
                "POLICY_CONFLICT",
                f"the operands of {op} are summed in different types",
                site=site,
                found=f"accum({joined.accumulate}) and accum({policy.accumulate})",
                hint="op.with_policy(x, f32 @ accum(f32)) states one policy for what follows",
            )
        joined = joined.joined(policy)
    if joined == NO_POLICY or like is None or like == BOOL or op in _MOVING:
        return Plan(joined)
    if joined.stochastic and like.is_float:
        raise _unsupported(f"{op} would round to nearest under stochastic_round", site, "cast with a key instead")
    sums = op in SUMMING and attributes.get("kind") not in _COMPARING
    sums = sums or attributes.get("reduction") in _ADDING
    inside, through = _accumulator(op, joined.accumulate, like, site) if sums and joined.accumulate else (None, None)
    if not joined.saturating:
        stored = None if inside is None or not like.is_float else like
        return Plan(joined, like, inside, through, stored)
    return Plan(joined, like, inside or _wider(op, like, site), through, like, bounds_of(like))


def _accumulator(op: str, wanted: DType, like: DType, site: Site | None) -> tuple[DType | None, DType | None]:
    """The type that a sum runs in where that is not the native one, and a narrower one that its value has."""
    # Running sums and scatters add up in place, in the type that they give.
    native = native_accumulator(like) if op in SUMMING and op != "cumulate" else like
    if wanted.is_float != like.is_float or (not like.is_float and wanted.bits < like.bits):
        hint = f"op.cast(x, {wanted}) computes in {wanted} throughout"
        raise _unsupported(f"{op} of {like} cannot be summed in {wanted}", site, hint)
    if like in STORAGE_FLOATS:
        return wanted, None
    if wanted == native:
        return None, None
    if not like.is_float or wanted.bits > native.bits:
        return wanted, None
    return None, None if wanted == like else wanted


def _wider(op: str, like: DType, site: Site | None) -> DType | None:
    """The type in which nothing overflows before it is cut off; None where a float's infinity tells."""
    if like in STORAGE_FLOATS:
        return F32
    if like.is_float:
        return None
    largest = 16 if op in SUMMING or like.kind == "unsigned" else 32
    if like.bits > largest or op not in SUMMING | _INTEGER_OPS:
        raise _unsupported(f"{op} does not cut off at the largest {like}", site, "compute in a wider type, and cast")
    return I32 if like.bits < 16 and op not in SUMMING else I64


def bounds_of(dtype: DType) -> tuple[float, float]:
    """The smallest and the largest number of a type."""
    if dtype.is_float:
        return -LARGEST[dtype.name], LARGEST[dtype.name]
    signed = dtype.kind == "signed"
    return (-(1 << (dtype.bits - 1)) if signed else 0), (1 << (dtype.bits - signed)) - 1


def written(
    builder: GraphBuilder,
    plan: Plan,
    node: tuple[str, Sequence[int], Mapping[str, Attribute]],
    regions: Sequence[Region],
) -> tuple[int, ...]:
    """The results of an op, written as its plan says."""
    op, values, attributes = node
    inside = plan.inside
    if inside is not None:
        values = [builder.op("cast", v, dtype=inside) if builder.type(v).dtype == plan.like else v for v in values]
    computed = plan.like if inside is None else inside
    results = builder.node(op, tuple(values), attributes, regions)
    return tuple(_stored(builder, plan, r) if builder.type(r).dtype == computed else r for r in results)


def _stored(builder: GraphBuilder, plan: Plan, result: int) -> int:
    """A result rounded, cut off and converted."""
    if plan.through is not None:
        result = builder.op("cast", builder.op("cast", result, dtype=plan.through), dtype=builder.type(result).dtype)
    if plan.bounds is not None:
        low, high = (builder.scalar(bound, result) for bound in plan.bounds)
        result = builder.op("min", builder.op("max", result, low), high)
    if plan.stored is None or builder.type(result).dtype == plan.stored:
        return result
    return builder.op("cast", result, dtype=plan.stored)


def _unsupported(message: str, site: Site | None, hint: str) -> LanguageError:
    return LanguageError("POLICY_UNSUPPORTED", message, site=site, hint=hint)


def inner_policies(known: Mapping[int, Policy], op: str, regions: Sequence[Region], count: int) -> list[Policy]:
    """What each result of an op that runs regions is under inside of them; nothing of any other op.

    Behind its first region a stated function has its derivative; before what they carry, loops yield their condition.
    """
    if op not in ("if", "loop", "checkpoint", "stated"):
        return []
    given = [region.results[len(region.results) - count :] for region in (regions[:1] if op == "stated" else regions)]
    rows = [[known.get(value, NO_POLICY) for value in values] for values in given]
    return [reduce(Policy.joined, column) for column in zip(*rows, strict=True)]
