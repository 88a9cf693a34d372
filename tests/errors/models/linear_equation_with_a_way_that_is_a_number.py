from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.linear_solve(lambda z: z * 2, x, linear=3)
    #      ^ BAD_ARGUMENT: op.linear_solve cannot take its argument linear
