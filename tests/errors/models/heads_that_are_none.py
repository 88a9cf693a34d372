from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B", 4, 8]):
    return op.split_heads(x, 0)
    #      ^ BAD_ARGUMENT: there are no heads
