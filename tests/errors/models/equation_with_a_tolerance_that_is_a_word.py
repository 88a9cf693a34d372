from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.fixed_point(lambda z: z / 2, x, tol="a")
    #      ^ BAD_ARGUMENT: fixed_point has no way to its end
