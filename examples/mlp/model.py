"""A perceptron with one hidden layer that reads handwritten digits, and the step that trains it.

Takes images of 64 pixels in 0..1; `classify` gives probabilities of ten digits with the weights of model.safetensors,
`train` gives the loss and the gradients for weights that are fed. Invariant: both entries compute the same `scores`.
"""

from tessera import Tensor, f32, graph, i64, op

W1 = op.tensor((64, 48), init=op.init.he(seed=1))
b1 = op.tensor((48,), init=op.init.zeros())
W2 = op.tensor((48, 10), init=op.init.glorot(seed=2))
b2 = op.tensor((10,), init=op.init.zeros())


def scores(x):
    h = op.relu(op.matmul(x, W1) + b1)
    return op.matmul(h, W2) + b2


@graph.module("classify")
def classify(x: Tensor["B", 64, f32]):
    probabilities = op.softmax(scores(x))
    return probabilities


@graph.training_step(module="train")
def train(x: Tensor["B", 64, f32], label: Tensor["B", i64]):
    loss = op.cross_entropy(scores(x), label)
    grads = graph.backward(loss, wrt=[W1, b1, W2, b2])
    return grads, {"loss": loss}
