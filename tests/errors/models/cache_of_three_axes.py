from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor[4], cache: KVCache["B", 8, 64]):
    #                      ^ BAD_STATE: a cache of keys and values has four axes
    return x, cache
