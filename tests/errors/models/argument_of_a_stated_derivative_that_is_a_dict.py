from tessera import Tensor, f32, graph, i8, op


@graph.custom_vjp
def f(x):
    return x["a"] * 2.0


@f.defvjp
def rule(x, g):
    return g * 2.0


@graph.module("m")
def m(x: Tensor[4]):
    return f({"a": x})
    #      ^ BAD_ARGUMENT: a function with a derivative of its own takes tensors and numbers
