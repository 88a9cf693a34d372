from tessera import Tensor, f32, graph, i64, op


@graph.module("m")
def m(x: Tensor[4], n: Tensor[4, i64]):
    return graph.grad(lambda x, n: op.reduce_sum(x * op.cast(n, f32)), wrt=1)(x, n)
    #      ^ NOT_DIFFERENTIABLE: a derivative is asked by something that is no floating-point tensor
