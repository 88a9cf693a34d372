"""A physics-informed network: it is trained to obey an equation, whose second derivatives it takes of itself.

Takes points (x, y); `solution` gives u, `residual` what is left of u_x + u_y - nu (u_xx + u_yy), and `train` the loss
and gradients for weights that are fed. Invariant: derivatives by the points are exact, not differences.
"""

from tessera import Tensor, f32, graph, op

WIDTH, NU = 16, 0.1

W1, b1 = op.tensor((2, WIDTH), init=op.init.glorot(1)), op.tensor((WIDTH,), init=op.init.zeros())
W2, b2 = op.tensor((WIDTH, WIDTH), init=op.init.glorot(2)), op.tensor((WIDTH,), init=op.init.zeros())
W3 = op.tensor((WIDTH, 1), init=op.init.glorot(3))


def net(x, y):
    h = op.tanh(op.stack([x, y], axis=1) @ W1 + b1)
    h = op.tanh(h @ W2 + b2)
    return op.squeeze(h @ W3, 1)


def equation(x, y):
    u = net(x, y)
    dx, dy = op.ones_like(x), op.ones_like(y)
    du_dx = graph.jvp(u, wrt=x)
    du_dy = graph.jvp(u, wrt=y)
    d2u_dx2 = graph.hvp(u, wrt=x, dir=dx)
    d2u_dy2 = graph.hvp(u, wrt=y, dir=dy)
    return du_dx + du_dy - NU * (d2u_dx2 + d2u_dy2)


@graph.module("solution")
def solution(x: Tensor["N", f32], y: Tensor["N", f32]):
    u = net(x, y)
    return u


@graph.module("residual")
def residual(x: Tensor["N", f32], y: Tensor["N", f32]):
    left = equation(x, y)
    return left


@graph.training_step(module="train")
def train(x: Tensor["N", f32], y: Tensor["N", f32], edge_x: Tensor["M", f32], edge_u: Tensor["M", f32]):
    inside = op.mean(op.square(equation(x, y)))
    edge = op.mse(net(edge_x, op.zeros_like(edge_x)), edge_u)
    loss = inside + edge
    return {"loss": loss, "grads": graph.backward(loss, wrt=[W1, b1, W2, b2, W3])}
