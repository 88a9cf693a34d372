from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4], y: Tensor[4, 5]):
    return op.einsum("bi,ii->b", x, y)
    #      ^ TYPE_MISMATCH: letter i of einsum has two extents
