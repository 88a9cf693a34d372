from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.forward(lambda a: a, x, tangents=x)
    #      ^ BAD_ARGUMENT: graph.forward takes arguments and tangents in tuples
