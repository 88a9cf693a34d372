from tessera import Tensor, f32, graph, op

import numpy as np


@graph.module("m")
def m(x: Tensor["B", 8, f32]):
    return np.stack([x, x])
    #      ^ TENSOR_AS_PYTHON: a tensor is asked for an array while the model is traced
