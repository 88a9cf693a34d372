from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4], d: Tensor[4]):
    return graph.forward(op.exp, (x,), tangents=(d,))
    #      ^ TANGENT_MISMATCH: a direction has another type than the tensor it belongs to
