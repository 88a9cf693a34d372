import numpy as np

from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor[4, f32]):
    return x, op.constant(np.asarray([1, -1]), "u64")
    #         ^ NUMBER_CHANGES_TYPE: an array has numbers that are no elements of type u64
