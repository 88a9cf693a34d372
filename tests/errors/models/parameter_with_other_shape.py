from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

import numpy as np

W = op.tensor((3, 4), init=np.zeros((4, 3)))
#   ^ PARAMETER_SHAPE: the value of parameter (without a name) has another shape
