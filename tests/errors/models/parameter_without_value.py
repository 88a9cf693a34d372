from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

W = op.tensor((4,))
#   ^ PARAMETER_WITHOUT_VALUE: the parameter W has no value


@graph.module("m")
def m(x: Tensor["B", 4]):
    return x * W
