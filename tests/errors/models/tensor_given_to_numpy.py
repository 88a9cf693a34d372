from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

import numpy as np


@graph.module("m")
def m(x: Tensor["B", 4]):
    return np.asarray(x)
    #      ^ TENSOR_AS_PYTHON: a tensor is asked for an array while the model is traced
