from tessera import KVCache, OptimizerState, State, Tensor, accum, bf16, f8e4m3, f32, graph, i64, loss_scale, op, saturate, stochastic_round

W = op.tensor((4,), init=op.init.normal(seed=None))
#                        ^ BAD_SEED: a seed is none
