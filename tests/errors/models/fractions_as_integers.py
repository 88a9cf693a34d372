from tessera import Tensor, graph, i64, op

@graph.module("m")
def m(i: Tensor["B", i64]):
    return i + op.constant([0.5], i64)
    #          ^ NUMBER_CHANGES_TYPE: an array has numbers that are no elements of type i64
