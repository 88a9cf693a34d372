from tessera import Tensor, graph, op

import math

@graph.module("m")
def m(x: Tensor["B", 4]):
    return x * math.sqrt(x.shape[0])
    #          ^ EXTENT_AS_PYTHON: an extent is asked for a number while the model is traced
