from tessera import Tensor, f32, graph, op

import numpy as np


@graph.module("m")
def m(x: Tensor[3]):
    return x + np.ones(3)
    #      ^ TYPE_MISMATCH: add mixes element types
