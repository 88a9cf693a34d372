from tessera import Tensor, f32, graph, i8, op


@graph.custom_vjp
def f(x):
    return x * 2.0


@f.defvjp
def rule(x, g):
    return op.reduce_sum(g)


@graph.module("m")
def m(x: Tensor[4]):
    return f(x)
    #      ^ DERIVATIVE_MISMATCH: a stated gradient has another type than its argument
