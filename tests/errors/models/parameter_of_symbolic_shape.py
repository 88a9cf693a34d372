from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

W = op.tensor(("D", 4))
#   ^ PARAMETER_SHAPE: a parameter's extent is no number
