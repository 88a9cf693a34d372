from tessera import Tensor, f32, graph, i8, op


@graph.custom_vjp
def f(x):
    return x * 2.0


@f.defvjp
def rule(x, g):
    return g * 2.0, g


@graph.module("m")
def m(x: Tensor[4]):
    return graph.grad(lambda z: op.reduce_sum(f(z)))(x)
    #                                         ^ DERIVATIVE_MISMATCH: the stated derivative gives not one gradient for each tensor among the arguments
