from tessera import Tensor, f32, graph, i8, op


@graph.custom_jvp
def f(x):
    return x * 1.0


@f.defjvp
def rule(x, change):
    return change * change
    #      ^ NOT_LINEAR: a custom_jvp has gradients only where its rule is linear in the tangents: what stands here is not


@graph.module("m")
def m(x: Tensor[4]):
    return graph.grad(lambda z: op.reduce_sum(f(z)))(x)
