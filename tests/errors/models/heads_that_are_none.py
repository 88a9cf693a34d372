from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B", 4, 8]):
    return op.split_heads(x, 0)
    #      ^ BAD_ARGUMENT: op.split_heads cannot take its argument heads
