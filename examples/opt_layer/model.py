"""A layer whose answer is a minimum: x* = argmin f(x; params, input), differentiated by the equation that it solves.

Takes an input and parameters of the cost; `opt_layer` gives the minimum, `gradients` also how a loss of it changes with
both. Invariant: gradients come from the implicit function theorem, so the iterations of the solver are not kept.
"""

from tessera import Tensor, f32, graph, op

A = op.tensor((4, 4), init=op.init.normal(seed=1, scale=0.3))


def cost(x, params, input):
    apart = x - input
    bent = A @ x
    return op.reduce_sum(apart * apart) + op.reduce_sum(op.exp(x * params)) + 0.5 * op.reduce_sum(bent * bent)


def minimum(params, input):
    return op.solve(graph.grad(lambda x: cost(x, params, input)), op.zeros((4,)), tol=1e-6)


@graph.module("opt_layer")
def opt_layer(params: Tensor[4, f32], input: Tensor[4, f32]):
    x_star = minimum(params, input)
    return x_star


@graph.module("gradients")
def gradients(params: Tensor[4, f32], input: Tensor[4, f32], target: Tensor[4, f32]):
    loss = op.mse(minimum(params, input), target)
    grads = graph.backward(loss, wrt=[params, input])
    return grads, {"loss": loss}
