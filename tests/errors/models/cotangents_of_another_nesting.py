from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4]):
    _, pull = graph.vjp(lambda a: {"up": a * 2.0, "down": a * 3.0}, x)
    return pull((x, x))
    #      ^ BAD_ARGUMENT: the cotangents are nested differently from the results
