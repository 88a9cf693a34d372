from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor[4], memory: State[4]):
    return x, memory.set(x[:2])
    #         ^ STATE_CHANGES_TYPE: the next state has another type than the one that came in
