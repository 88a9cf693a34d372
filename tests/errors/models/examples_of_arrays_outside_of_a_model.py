import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

g = graph.vmap(op.sin)(np.ones(3))
#   ^ NO_TRACE: what graph.vmap gives is called outside of a model
