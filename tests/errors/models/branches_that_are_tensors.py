from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.cond(op.reduce_sum(x) > 0, x, -x)
    #      ^ BAD_ARGUMENT: cond takes functions: what it is given is computed anyway
