from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 8, bf16 @ accum(i64)], y: Tensor[8, 4, bf16]):
    return x @ y
    #      ^ POLICY_UNSUPPORTED: matmul of bf16 cannot be summed in i64
