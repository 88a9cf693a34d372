from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4], y: Tensor[4]):
    return graph.jvp(op.exp(x) * y, wrt={"x": x, "y": y}, tangents=(x, y))
    #      ^ BAD_ARGUMENT: the directions are nested differently from the tensors that they belong to
