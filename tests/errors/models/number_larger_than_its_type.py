from tessera import Tensor, graph, i64, op

@graph.module("m")
def m(i: Tensor["B", i64]):
    return op.add(i, 10**30)
    #      ^ NUMBER_CHANGES_TYPE: the number
