from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    x[0] = 1.0
    #^ TENSOR_CHANGED: a tensor is never changed
    return x
