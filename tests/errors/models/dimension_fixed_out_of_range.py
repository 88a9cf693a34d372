from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

# dims S=9
S = graph.dim("S", 1, 8)


@graph.module("m")
def m(x: Tensor[S, 4]):
    #    ^ DIM_OUT_OF_RANGE: the build fixes dimension S outside its range
    return x
