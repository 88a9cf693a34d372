from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", i64 @ saturate]):
    return x * x
    #      ^ POLICY_UNSUPPORTED: mul does not cut off at the largest i64
