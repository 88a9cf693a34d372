from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

# entry mm
@graph.module("m")
def m(x: Tensor["B", 4]):
    return x
# line 1 ENTRY_UNKNOWN: the file has no entry 'mm'
