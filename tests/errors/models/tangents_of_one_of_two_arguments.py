from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4], y: Tensor[4]):
    return graph.forward(lambda p: p["a"] * p["b"], ({"a": x, "b": y},), tangents=(x, y))
    #      ^ BAD_ARGUMENT: the directions are nested differently from the tensors that they belong to
