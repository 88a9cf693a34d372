from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor[3, f32]):
    def total(v):
        @graph.custom_vjp
        def scaled(a):
            return a * v

        @scaled.defvjp
        def _(a, change):
            return change

        return op.reduce_sum(scaled(v))
        #                    ^ NOT_DIFFERENTIABLE: stated has no derivative

    return graph.grad(total)(x)
