from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round


@graph.custom_vjp
def f(x):
    return x * 2


@graph.module("m")
def m(x: Tensor[4]):
    return f(x)
    #      ^ NO_DERIVATIVE_RULE: a function with a derivative of its own has none
