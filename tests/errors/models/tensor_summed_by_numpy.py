from tessera import Tensor, f32, graph, op

import numpy as np


@graph.module("m")
def m(x: Tensor["B", 8, f32]):
    return np.sum(x)
    #      ^ AUTHOR_CODE_FAILED: TypeError: operand 'Tensor' does not support ufuncs
