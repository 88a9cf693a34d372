from tessera import Tensor, graph, op

@graph.module("m")
def m(q: Tensor["B", 2, 3, "D"]):
    return op.attention(q, q, q, scale=0.5)
    #      ^ BAD_ARGUMENT: the depth of attention is unknown
