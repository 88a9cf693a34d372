import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

g = graph.grad(op.reduce_sum)(np.ones(3))
#   ^ NO_TRACE: what graph.grad gives is called outside of a model
