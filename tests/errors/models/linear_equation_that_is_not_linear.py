from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.linear_solve(lambda v: v * v, x)
    #      ^ NOT_LINEAR: the function of linear_solve is not linear
