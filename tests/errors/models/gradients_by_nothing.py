from tessera import Tensor, f32, graph, i32, op

@graph.autodiff
@graph.module("m")
def m(x: Tensor[3, i32]):
#^ NOT_DIFFERENTIABLE: the entry m has nothing that it is differentiated by
    return op.reduce_sum(op.cast(x, f32))
