from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4, 3]):
    return op.split(x, 0, 1)
    #      ^ BAD_ARGUMENT: op.split cannot take its argument parts
