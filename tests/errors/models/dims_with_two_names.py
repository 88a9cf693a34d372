from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 8], y: Tensor["N", 8]):
    return x + y
    #      ^ TYPE_MISMATCH: add cannot broadcast its operands at axis 0 of 2
