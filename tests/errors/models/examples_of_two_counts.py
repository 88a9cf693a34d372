from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round


@graph.module("m")
def m(x: Tensor["B", 4], y: Tensor["N", 4]):
    return graph.vmap(lambda a, b: a + b)(x, y)
    #      ^ VMAP_EXTENTS: the arguments have no one number of examples
