from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.swishy(x)
    #      ^ AUTHOR_CODE_FAILED: AttributeError: module 'tessera.op' has no attribute 'swishy'
