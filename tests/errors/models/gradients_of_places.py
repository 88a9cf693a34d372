from tessera import Tensor, f32, graph, op

@graph.autodiff
@graph.module("m")
def m(x: Tensor[3]):
#^ NOT_DIFFERENTIABLE: the entry m gives no floating-point number that could be differentiated
    return op.argmax(x, axis=0)
