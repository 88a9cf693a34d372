from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.cond(op.reduce_sum(x) > 0, lambda: graph.jvp(op.sin(x), wrt=x), lambda: x)
    #                                            ^ NOT_DIFFERENTIABLE: tangents inside a region are taken of functions
