from tessera import Tensor, f32, graph, loss_scale, op

scale = loss_scale("a")
#       ^ BAD_POLICY: a loss is scaled exactly
