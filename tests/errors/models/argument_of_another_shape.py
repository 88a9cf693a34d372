from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("inner")
def inner(x: Tensor["N", "D"], scale: Tensor["D"]):
    return x * scale


@graph.module("m")
def m(x: Tensor["B", 8], scale: Tensor[4]):
    return inner(x, scale)
    #      ^ ARGUMENT_MISMATCH: axis 0 of argument scale of inner is 4, but 8 by axis 1 of x
