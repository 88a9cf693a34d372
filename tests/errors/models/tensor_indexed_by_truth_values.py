from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.reduce_sum(x[x > 0.0])
    #                    ^ BAD_INDEX: an index of a tensor is none
