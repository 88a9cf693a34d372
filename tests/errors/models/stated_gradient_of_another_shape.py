from tessera import Tensor, graph, op

@graph.custom_vjp
def total(a):
    return op.reduce_sum(a)

@total.defvjp
def total_rule(a, cotangent):
    return cotangent

@graph.module("m")
def m(x: Tensor[4]):
    return graph.grad(total)(x)
    #      ^ DERIVATIVE_MISMATCH: a stated gradient has another type than its argument
