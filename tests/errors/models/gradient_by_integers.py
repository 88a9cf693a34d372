from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4], n: Tensor["B", i64]):
    return graph.backward(op.reduce_sum(x), wrt=[x, n])
    #      ^ NOT_DIFFERENTIABLE: a derivative is asked by something that is no floating-point tensor
