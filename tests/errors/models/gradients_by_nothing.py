from tessera import Tensor, graph, i32, op

@graph.autodiff
@graph.module("m")
def m(x: Tensor[3, i32]):
#^ NOT_DIFFERENTIABLE: the entry m has nothing that it is differentiated by
    return op.reduce_sum(x)
