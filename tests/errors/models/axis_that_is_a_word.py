from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3, 4]):
    return op.reduce_sum(x, axes=("rows",))
    #      ^ BAD_AXIS: an axis is none
