"""Losses: one number that says how far an answer is from the truth.

Takes predictions and truths; gives a scalar, the mean over everything. Invariant: logits go in as they are; nothing
overflows for any finite ones.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.arguments import door
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.op.creation import arange, one_hot
from tessera.op.elementwise import cast, where
from tessera.op.indexing import gather
from tessera.op.reduction import log_softmax, reduce_mean, reduce_sum
from tessera_build.ir.core.dims import Extent
from tessera_build.ir.core.types import BOOL, I64


@door
def cross_entropy(logits: Value, truth: Value) -> Tensor:
    """The mean of -log softmax(logits) at the truth: integer classes, or a distribution of the logits' shape.

    A class that there is not ends the run with INDEX_OUT_OF_RANGE.
    """
    scores = log_softmax(logits)
    if truth.dtype.is_float:
        if truth.shape != logits.shape:
            raise _unfit(logits, truth)
        return reduce_mean(-reduce_sum(scores * truth, -1))
    classes = logits.shape[-1]
    if truth.shape != logits.shape[:-1]:
        raise _unfit(logits, truth)
    found = one_hot(_inside(truth, classes), classes, BOOL)
    return reduce_mean(-reduce_sum(where(found, scores, 0), -1))


def _inside(truth: Value, classes: Extent) -> Tensor:
    """The classes, read from a table of themselves, which refuses one outside of it, and with it what is negative."""
    wide = cast(truth, I64)
    return gather(arange(classes), where(wide < 0, classes, wide))


def _unfit(logits: Value, truth: Value) -> LanguageError:
    return LanguageError(
        "TYPE_MISMATCH",
        "cross_entropy's truth does not fit the logits",
        site=here(),
        expected="integer classes [...] or a distribution [..., C] for logits [..., C]",
        found=f"{described(logits)} and {described(truth)}",
    )


@door
def mse(prediction: Value, truth: Value) -> Tensor:
    """The mean of the squared differences."""
    difference = emit("sub", prediction, truth)
    return reduce_mean(difference * difference)
