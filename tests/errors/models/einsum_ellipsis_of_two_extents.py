from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4], y: Tensor[4, 5]):
    return op.einsum("...,j...->j...", x, y)
    #      ^ TYPE_MISMATCH: axis -1 of ... of einsum has two extents
