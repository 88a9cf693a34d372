from tessera import Tensor, graph, op, u8

@graph.module("m")
def m(i: Tensor["B", u8]):
    return op.div(2, i)
    #      ^ TYPE_MISMATCH: the quotient of integers is no integer
