from tessera import Tensor, graph, op

@graph.custom_vjp
def product(a, b):
    return a * b

@product.defvjp
def product_rule(a, b, cotangent):
    return {"b": a * cotangent, "a": b * cotangent}

@graph.module("m")
def m(x: Tensor[4], y: Tensor[4]):
    return graph.grad(lambda a: op.reduce_sum(product(a, y)))(x)
    #                                         ^ DERIVATIVE_MISMATCH: the stated derivative gives not one gradient for each
