from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def first(x: Tensor["B", 4]):
    return x


@graph.module("m")
def second(x: Tensor["B", 4]):
#^ DUPLICATE_NAME: two entries are called 'm'
    return x * 2
