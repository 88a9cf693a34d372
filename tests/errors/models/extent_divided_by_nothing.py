from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.reshape(x, (x.shape[0] // 0, -1))
    #                     ^ BAD_EXTENT: an extent is divided by a number that is not above zero
