from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4]):
    return x[0, 0, 0]
    #      ^ BAD_INDEX: a tensor is indexed with more axes than it has
