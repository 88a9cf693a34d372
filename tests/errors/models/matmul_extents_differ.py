from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

W = op.tensor((9, 16), init=op.init.normal(seed=1))


@graph.module("m")
def m(x: Tensor["B", 8]):
    return op.softmax(x @ W)
    #                 ^ TYPE_MISMATCH: matmul's contracted extents differ
