from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return graph.grad(lambda v: (op.reduce_sum(v), op.reduce_max(v)))(x)
    #      ^ LOSS_NOT_SCALAR: graph.grad takes one number
