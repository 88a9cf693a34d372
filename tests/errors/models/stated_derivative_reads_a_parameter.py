from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

W = op.tensor((4,), init=op.init.ones())


@graph.custom_jvp
def weighted(x):
    return x * W


@weighted.defjvp
def rule(x, t):
    return t * W


@graph.module("m")
def m(x: Tensor[4]):
    y = weighted(x)
    #   ^ NOT_DIFFERENTIABLE: stated has no derivative here
    return graph.backward(op.reduce_sum(y), wrt=W)
