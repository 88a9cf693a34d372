from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.fixed_point(lambda z: z / 2, x, tol="a")
    #      ^ BAD_ARGUMENT: op.fixed_point cannot take its argument tol
