import numpy as np
from tessera import Tensor, f32, graph, loss_scale, op

S = graph.dim(3)
#   ^ BAD_EXTENT: a dimension has no name or an empty range
