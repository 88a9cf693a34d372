from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.linear_solve(lambda z: z * 2, x, linear=op.Krylov(max_iter="a"))
    #                                                 ^ BAD_ARGUMENT: an iteration has no end
