from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x, scale: Tensor[f32]):
#^ INPUT_WITHOUT_TYPE: argument x of the entry m has no type
    return x * scale
