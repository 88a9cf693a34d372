from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", f32], y: Tensor["B", bf16]):
    z = op.exp(y)
    return x * z
    #      ^ TYPE_MISMATCH: mul mixes element types
