from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    y = op.while_(lambda v: op.reduce_max(v) < 100.0, lambda v: v * v, x)
    return graph.backward(op.reduce_sum(y), wrt=x)
    #      ^ NOT_DIFFERENTIABLE: loop has no derivative here: nothing but data bounds its iterations: state max_iter
