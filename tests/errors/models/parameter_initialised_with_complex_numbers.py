from tessera import Tensor, graph, op

import numpy as np

W = op.tensor((2,), init=lambda shape: np.full(shape, 1j))
#   ^ UNKNOWN_DTYPE: an array's elements have no element type here

@graph.module("m")
def m(x: Tensor[2]):
    return x * W
