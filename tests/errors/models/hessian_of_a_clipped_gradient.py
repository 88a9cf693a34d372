from tessera import Tensor, graph, op


@graph.custom_vjp
def clipped(x):
    return x * 1.0


@clipped.defvjp
def rule(x, g):
    return op.clip(g, -1.0, 1.0)
    #      ^ NOT_LINEAR: a custom_vjp has tangents only where its rule is linear in the cotangent: what stands here is not (graph.hvp at hessian_of_a_clipped_gradient.py:17:12 asks for it)


@graph.module("m")
def m(x: Tensor[4]):
    return graph.hvp(lambda z: op.reduce_sum(clipped(z) ** 3.0), wrt=x, dir=x, inputs=(x,))
