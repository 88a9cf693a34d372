from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.forward(lambda a, b: a * b, (x, 2.0), tangents=(x, 0.0))
    #      ^ BAD_ARGUMENT: the directions are nested differently from the tensors that they belong to
