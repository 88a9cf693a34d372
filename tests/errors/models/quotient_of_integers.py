from tessera import Tensor, graph, i64, op

@graph.module("m")
def m(i: Tensor["B", i64]):
    return i / 2
    #      ^ TYPE_MISMATCH: the quotient of integers is no integer
