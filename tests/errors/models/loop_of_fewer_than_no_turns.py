from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.while_(lambda v: op.reduce_sum(v) < 3.0, lambda v: v * 2, x, max_iter=-1)
    #      ^ BAD_ARGUMENT: max_iter of while_ is no number of iterations
