from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.linear_solve(lambda v: v * 2.0, x, op.Krylov(tol=-1.0))
    #                                            ^ BAD_ARGUMENT: an iteration has no end
