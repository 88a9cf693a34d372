from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor[4]):
    kept = []

    def then():
        kept.append(op.exp(x))
        return kept[0]

    y = op.cond(op.reduce_sum(x) > 0, then, lambda: x)
    return y + kept[0]
    #      ^ TENSOR_OUT_OF_SCOPE: a tensor is used outside of the function that it was made in
