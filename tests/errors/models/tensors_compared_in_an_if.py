from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round


@graph.module("m")
def m(x: Tensor["B", 4], y: Tensor["B", 4]):
    assert x == y
    #      ^ TENSOR_AS_PYTHON: a tensor is asked for a truth value while the model is traced
    return x
