from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.scan(x, x, x)[0]
    #      ^ BAD_ARGUMENT: scan takes functions: what it is given is computed anyway
