from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

S = graph.dim("S", 1, 8)


@graph.module("m")
def m(x: Tensor[S, 4]):
    graph.require(x.shape[0], ">=", 9, "at least nine rows")
    #^ DIMS_IMPOSSIBLE: at least nine rows
    return x
