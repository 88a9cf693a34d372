from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", "S", 16]):
    return op.split_heads(x, 3)
    #      ^ DIMS_IMPOSSIBLE: the last axis of f32[B, S, 16] has no 3 heads
