from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B", 3]):
    return op.reshape(x, ("B", 3))
    #      ^ BAD_EXTENT: an extent of a shape is no extent
