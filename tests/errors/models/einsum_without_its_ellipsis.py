from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4], y: Tensor[4, 5]):
    return op.einsum("...i,ij->j", x, y)
    #      ^ BAD_ARGUMENT: einsum does not understand its formula
