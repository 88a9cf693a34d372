from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 3, 8, 8]):
    return op.resize(x, (16,))
    #      ^ BAD_ARGUMENT: resize does not fit the image
