from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 1, 5, 5]):
    return op.conv(x, op.ones((1, 1, 2, 2)), stride=1.5)
    #      ^ BAD_ARGUMENT: a window over an image cannot take its argument stride
