from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.cond(op.reduce_sum(x) > 0, lambda: x, lambda: op.reduce_sum(x))
    #      ^ BRANCHES_DIFFER: the branches of cond give other types
