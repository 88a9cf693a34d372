from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

from tessera import f64


@graph.module("m")
def m(x: Tensor["B", 8, bf16 @ accum(f32)], y: Tensor[8, 4, bf16 @ accum(f64)]):
    return x @ y
    #      ^ POLICY_CONFLICT: the operands of matmul are summed in different types
