from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.jvp(op.sin(x), wrt=x, tangents=x, dir=x)
    #      ^ BAD_ARGUMENT: graph.jvp is given two directions
