"""A feed-forward network of 24 layers: its gradient by all weights, with and without checkpoints, and its curvature.

Takes rows and, as inputs of every entry, the weights, about normal; `curvature` is the Hessian times the weights.
"""

from tessera import Tensor, f32, graph, op

LAYERS, ROWS, WIDTH = 24, 64, 64


class Layer(graph.Module):
    def __init__(self):
        self.up, self.down = op.tensor((WIDTH, 4 * WIDTH), dtype=f32), op.tensor((4 * WIDTH, WIDTH), dtype=f32)

    def forward(self, x):
        return x + op.gelu(x @ self.up) @ self.down * (1 / (4 * WIDTH))


layers = [Layer() for _ in range(LAYERS)]
weights = [weight for layer in layers for _, weight in layer.parameters()]


def loss(x, through=lambda layer: layer):
    for layer in layers:
        x = through(layer)(x)
    return op.reduce_mean(op.square(x))


@graph.training_step(module="gradient")
def gradient(x: Tensor[ROWS, WIDTH, f32]):
    return {"grads": graph.backward(loss(x), wrt=weights)}


@graph.training_step(module="checkpointed")
def checkpointed(x: Tensor[ROWS, WIDTH, f32]):
    return {"grads": graph.backward(loss(x, graph.checkpoint), wrt=weights)}


@graph.training_step(module="curvature")
def curvature(x: Tensor[ROWS, WIDTH, f32]):
    return {"hvp": graph.hvp(loss, wrt=weights, dir=weights, inputs=(x,))}
