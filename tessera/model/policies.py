"""What a numeric policy demands of an op, and which demands this compiler can keep.

Takes the policies of an op's operands; gives the policy of its results. Invariant: sums of products run in f32 for f32
and everything narrower, and in f64 for f64; a policy that asks for anything else is refused where it is met.
"""

from __future__ import annotations

from collections.abc import Sequence

from tessera.errors import LanguageError
from tessera.model.numeric import NO_POLICY, Policy
from tessera.model.site import Site
from tessera_build.ir.core.types import F32, F64, DType

SUMMING = frozenset({"matmul", "conv", "reduce", "softmax", "attention", "cumulate"})
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


def native_accumulator(dtype: DType) -> DType:
    """The type in which compiled code sums numbers of this type."""
    return F32 if dtype.is_float and dtype != F64 else dtype


def check_policy(op: str, policies: Sequence[Policy], like: DType | None, site: Site | None) -> Policy:
    """The joined policy of an op's operands; raises where they disagree or where it cannot be kept."""
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
    if joined == NO_POLICY or like is None or op in _MOVING:
        return joined
    if joined.stochastic and like.is_float:
        raise _unsupported(f"{op} would round to nearest under stochastic_round", site, "cast with a key instead")
    if joined.saturating:
        raise _unsupported(
            f"{op} does not cut off at the largest {like}", site, "compute in f32 and cast to the saturating type"
        )
    wanted = joined.accumulate
    if op in SUMMING and wanted is not None and wanted != native_accumulator(like):
        raise _unsupported(
            f"{op} of {like} sums in {native_accumulator(like)}, not in {wanted}",
            site,
            f"op.cast(x, {wanted}) computes in {wanted} throughout",
        )
    return joined


def _unsupported(message: str, site: Site | None, hint: str) -> LanguageError:
    return LanguageError("POLICY_UNSUPPORTED", message, site=site, hint=hint)
