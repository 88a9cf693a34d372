from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[2]):
    return x * op.constant([1 + 2j, 3], f32)
    #          ^ UNKNOWN_DTYPE: an array's elements have no element type here
