"""Operators that are made of several core ops compute in f32 where their operands are narrower floats.

Takes a translator; gives one that widens operands and rounds results once. Invariant: an operator of ONNX rounds its
result to its type once, as onnxruntime's kernels do, however many core ops it is made of.
"""

from __future__ import annotations

from dataclasses import replace

from tessera_build.frontends.onnx.call import Call, Translator
from tessera_build.frontends.onnx.containers import Value
from tessera_build.frontends.onnx.context import Context, Tensor
from tessera_build.ir.core.types import BF16, F16, F32, DType

_ACTIVATIONS = ("Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu", "Softplus", "Softsign")
_FUSED = ("Shrink", "Swish", "SwiGLU", "LogSoftmax", "BiasGelu", "FastGelu", "QuickGelu", "DeformConv")
_SUMS = ("Mean", "Sum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSumSquare")
_NORMALISATIONS = ("GroupNormalization", "InstanceNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "LpPool")
ROUNDED_ONCE = frozenset((*_ACTIVATIONS, *_FUSED, *_SUMS, *_NORMALISATIONS, *_POOLS))
_NARROW = (F16, BF16)


def rounded_once(translate: Translator) -> Translator:
    """The translator on f32 operands, its results in the narrow type that the operands had."""

    def widened(c: Context, n: Call) -> Value | tuple[Value, ...]:
        narrow = next((t.dtype for t in n.inputs if isinstance(t, Tensor) and t.dtype in _NARROW), None)
        if narrow is None:
            return translate(c, n)
        operands = tuple(_widened(c, t) for t in n.inputs)
        results = translate(c, replace(n, inputs=operands))
        if not isinstance(results, tuple):
            return _rounded(c, results, narrow)
        return tuple(_rounded(c, result, narrow) for result in results)

    return widened


def _widened(c: Context, operand: Value | None) -> Value | None:
    return c.cast(operand, F32) if isinstance(operand, Tensor) and operand.dtype in _NARROW else operand


def _rounded(c: Context, result: Value, dtype: DType) -> Value:
    return c.cast(result, dtype) if isinstance(result, Tensor) and result.dtype == F32 else result
