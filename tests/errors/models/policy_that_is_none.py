from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", bf16 @ f32]):
    #                ^ BAD_POLICY: what follows @ in a type is no numeric policy
    return x
