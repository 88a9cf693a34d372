from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.solve(lambda z: z * z - x, x, max_iter="a")
    #      ^ BAD_ARGUMENT: op.solve cannot take its argument max_iter
