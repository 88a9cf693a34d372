from tessera import Tensor, graph, i32, op

@graph.module("m")
def m(i: Tensor["B", 4, i32]):
    return op.mean(i, -1)
    #      ^ TYPE_MISMATCH: the quotient of integers is no integer
