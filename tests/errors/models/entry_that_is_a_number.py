import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

net = graph.jit(3)
#     ^ BAD_ARGUMENT: graph.jit takes functions
