from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", i64]):
    return op.sqrt(x)
    #      ^ TYPE_MISMATCH: sqrt is defined on floating-point elements
