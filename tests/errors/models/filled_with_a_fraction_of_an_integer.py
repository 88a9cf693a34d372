from tessera import Tensor, graph, i64, op

@graph.module("m")
def m(x: Tensor[2, i64]):
    return x * op.full((2,), 0.5, i64)
    #          ^ NUMBER_CHANGES_TYPE: the number 0.5 is no element of type i64
