from tessera import Tensor, f32, graph, i8, op


@graph.custom_vjp
def f(x):
    return x * 1.0


@f.defvjp
def rule(x, change):
    return change / op.sqrt(op.reduce_sum(change * change))
    #                                     ^ NOT_LINEAR: a custom_vjp has tangents only where its rule is linear in the cotangent: what stands here is not


@graph.module("m")
def m(x: Tensor[4]):
    return graph.forward(f, (x,), tangents=(x,))
