from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B"], y: Tensor["B"]):
    return op.residual(x, y, dropout=0.1)
    #      ^ RANDOM_WITHOUT_KEY: random numbers need a key
