from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", i64]):
    return x + 0.5
    #      ^ NUMBER_CHANGES_TYPE: the number 0.5 is no element of type i64
