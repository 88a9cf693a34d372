from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor[4], memory: State[4]):
#^ STATE_NOT_RETURNED: the entry m does not return the next memory
    return x + memory.value
