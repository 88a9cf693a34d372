import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

derived = graph.autodiff(wrt=3)
#         ^ BAD_ARGUMENT: autodiff is asked by something that is neither a name nor a parameter
