from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

A = op.tensor((4,), name="w", init=op.init.ones())
B = op.tensor((4,), name="w", init=op.init.zeros())
#   ^ DUPLICATE_NAME: two parameters are called 'w'


@graph.module("m")
def m(x: Tensor["B", 4]):
    return x * A + B
