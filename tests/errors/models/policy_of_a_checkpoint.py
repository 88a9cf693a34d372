from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4]):
    return graph.checkpoint(op.tanh, policy="dot")(x)
    #      ^ BAD_ARGUMENT: an unknown policy of checkpoint
