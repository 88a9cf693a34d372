from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 12]):
    return op.reshape(x, (x.shape[0], 3, 5))
    #      ^ DIMS_IMPOSSIBLE: [B, 12] has other elements than [B, 3, 5], which it is reshaped to
