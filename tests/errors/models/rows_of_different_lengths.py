from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 2]):
    return x + op.constant([[1, 2], [3]])
    #          ^ BAD_ARGUMENT: op.constant cannot take its argument array
