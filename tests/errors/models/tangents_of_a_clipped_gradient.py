from tessera import Tensor, f32, graph, i8, op


@graph.custom_vjp
def f(x):
    return x * 1.0


@f.defvjp
def rule(x, change):
    return op.clip(change, -1.0, 1.0)
    #      ^ NOT_LINEAR: a custom_vjp has tangents only where its rule is linear in the cotangent: what stands here is not (graph.forward at tangents_of_a_clipped_gradient.py:17:12 asks for it)


@graph.module("m")
def m(x: Tensor[4]):
    return graph.forward(f, (x,), tangents=(x,))
