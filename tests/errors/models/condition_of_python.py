from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.cond(True, lambda: x, lambda: -x)
    #      ^ BAD_CONDITION: the condition of cond is no tensor
