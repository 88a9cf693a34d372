from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

def m(x):
    return x
# line 1 NO_ENTRY: the file offers nothing to build
