from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 8, f32]):
    graph.require(x, "==", 4, "four")
    #^ BAD_ARGUMENT: graph.require compares extents
    return x
