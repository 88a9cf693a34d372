from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.vjp(3, x)
    #      ^ BAD_ARGUMENT: graph.vjp takes functions
