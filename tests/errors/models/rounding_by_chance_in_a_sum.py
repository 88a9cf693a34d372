from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", bf16 @ stochastic_round]):
    return x + 1
    #      ^ POLICY_UNSUPPORTED: add would round to nearest under stochastic_round
