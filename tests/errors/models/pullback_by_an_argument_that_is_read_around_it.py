from tessera import Tensor, f32, graph, op

W = op.tensor((3,), init=op.init.ones())


@graph.module("m")
def m(x: Tensor[3]):
    def loss(weights):
        return op.reduce_sum(op.square(x * W))

    return graph.vjp(loss, W)[1](1.0)
    #      ^ NOT_DIFFERENTIABLE: graph.vjp is asked by an argument that the function never reads
