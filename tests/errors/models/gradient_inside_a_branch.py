from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round


@graph.module("m")
def m(x: Tensor[4]):
    total = op.reduce_sum(x)

    def then():
        return graph.backward(total, wrt=x)
        #      ^ NOT_DIFFERENTIABLE: gradients inside a region are taken of functions

    return op.cond(total > 0, then, lambda: x)
