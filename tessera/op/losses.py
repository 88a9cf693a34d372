"""Losses: one number that says how far an answer is from the truth.

Takes predictions and truths; gives a scalar, the mean over everything. Invariant: logits go in as they are; nothing
overflows for any finite ones.
"""

from __future__ import annotations

from tessera.errors import LanguageError
from tessera.model.arguments import door
from tessera.model.site import here
from tessera.model.tensor import Tensor, Value, described, emit
from tessera.op.creation import one_hot
from tessera.op.reduction import log_softmax, reduce_mean, reduce_sum


@door
def cross_entropy(logits: Value, truth: Value) -> Tensor:
    """The mean of -log softmax(logits) at the truth: integer classes, or a distribution of the logits' shape."""
    scores = log_softmax(logits)
    if truth.dtype.is_float:
        if truth.shape != logits.shape:
            raise _unfit(logits, truth)
        return reduce_mean(-reduce_sum(scores * truth, -1))
    classes = logits.shape[-1]
    if truth.shape != logits.shape[:-1] or not isinstance(classes, int):
        raise _unfit(logits, truth)
    return reduce_mean(-reduce_sum(scores * one_hot(truth, classes, logits.dtype), -1))


def _unfit(logits: Value, truth: Value) -> LanguageError:
    return LanguageError(
        "TYPE_MISMATCH",
        "cross_entropy's truth does not fit the logits",
        site=here(),
        expected="integer classes [...] or a distribution [..., C] for logits [..., C] with C known",
        found=f"{described(logits)} and {described(truth)}",
    )


@door
def mse(prediction: Value, truth: Value) -> Tensor:
    """The mean of the squared differences."""
    difference = emit("sub", prediction, truth)
    return reduce_mean(difference * difference)
