from tessera import Tensor, graph, op


@graph.module("m")
def m(x: Tensor[4]):
    return op.fixed_point(lambda z: z, {"x": x, "y": "word"})
    #      ^ BAD_ARGUMENT: op.fixed_point cannot take its argument initial
