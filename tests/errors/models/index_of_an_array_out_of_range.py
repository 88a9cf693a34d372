from tessera import Tensor, f32, graph, op

import numpy as np


@graph.module("m")
def m(x: Tensor["B", 4]):
    return x[:, np.array([0, 4])]
    #      ^ DIMS_IMPOSSIBLE: index 4 lies outside of an axis of extent 4
