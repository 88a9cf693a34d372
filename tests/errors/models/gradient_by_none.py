from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.grad(op.reduce_sum, wrt=None)(x)
    #      ^ BAD_ARGUMENT: graph.grad is asked by something that is neither a place nor a parameter
