from tessera import Tensor, f32, graph, op

import numpy as np


@graph.module("m")
def m(x: Tensor[3]):
    return np.exp(x)
    #      ^ AUTHOR_CODE_FAILED: TypeError: operand 'Tensor' does not support ufuncs
