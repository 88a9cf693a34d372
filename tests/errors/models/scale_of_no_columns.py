from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(q: Tensor["B", 2, 4, 0], k: Tensor["B", 2, 6, 0], v: Tensor["B", 2, 6, 8]):
    return op.attention(q, k, v)
    #      ^ BAD_ARGUMENT: the scale of attention is unknown
