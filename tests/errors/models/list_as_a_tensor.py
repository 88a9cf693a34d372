from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.layernorm(x, [1.0, 1.0, 1.0, 1.0])
    #      ^ BAD_ARGUMENT: op.layernorm cannot take its argument scale
