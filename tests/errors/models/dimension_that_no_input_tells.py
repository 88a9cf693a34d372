from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["2*S", 4]):
    #    ^ DIM_NOT_BOUND: no input tells the size of dimension S
    return x
