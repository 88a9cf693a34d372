from tessera import Tensor, f32, graph, op

@graph.autodiff(wrt="z")
@graph.module("m")
def m(x: Tensor[3]):
#^ NOT_DIFFERENTIABLE: the entry m has no floating-point input or parameter 'z'
    return op.reduce_sum(x)
