"""A small transformer that predicts the next letter: whole texts, one step with a cache, and the gradients to train it.

Takes letters as numbers below 32; `predict` gives scores for the letter behind each one, `step` the same for a few
letters after those in a cache, `train` the loss and gradients for weights that are fed. Invariant: `predict` on a text
and `step` on its pieces, one after another, give the same scores.
"""

from tessera import KVCache, Tensor, f32, graph, i64, op

LETTERS, WIDTH, HEADS, LAYERS, LONGEST = 32, 32, 2, 2, 64


def weight(*shape):
    return op.tensor(shape, dtype=f32)


class Block(graph.Module):
    def __init__(self):
        self.norm_in, self.norm_out = weight(WIDTH), weight(WIDTH)
        self.qkv, self.out = weight(WIDTH, 3 * WIDTH), weight(WIDTH, WIDTH)
        self.up, self.down = weight(WIDTH, 4 * WIDTH), weight(4 * WIDTH, WIDTH)

    def forward(self, x, attend):
        q, k, v = op.split_qkv(op.rmsnorm_safe(x, self.norm_in) @ self.qkv, heads=HEADS)
        x = x + attend(q, k, v) @ self.out
        return x + op.gelu(op.rmsnorm_safe(x, self.norm_out) @ self.up) @ self.down


letters, places = weight(LETTERS, WIDTH), weight(LONGEST, WIDTH)
blocks = [Block() for _ in range(LAYERS)]
S = graph.dim("S", 1, LONGEST)


def scores(text):
    x = op.gather(letters, text) + places[: text.shape[1]]
    for block in blocks:
        x = block(x, lambda q, k, v: op.merge_heads(op.attention(q, k, v, causal=True)))
    return x @ letters.T


@graph.module("predict")
def predict(text: Tensor["B", S, i64]):
    return {"scores": scores(text)}


@graph.module("step")
def step(
    text: Tensor["B", S, i64],
    first: KVCache["B", HEADS, LONGEST, WIDTH // HEADS, f32],
    second: KVCache["B", HEADS, LONGEST, WIDTH // HEADS, f32],
):
    caches = [first, second]
    at = op.expand_dims(first.length, 1) + op.arange(text.shape[1])
    x = op.gather(letters, text) + op.gather(places, at)
    for index, block in enumerate(blocks):

        def attend(q, k, v, index=index):
            caches[index] = caches[index].append(k, v)
            return op.flash_attention(q, caches[index], causal=True)

        x = block(x, attend)
    return {"scores": x @ letters.T, "caches": caches}


@graph.training_step(module="train")
def train(text: Tensor["B", S, i64], following: Tensor["B", S, i64]):
    loss = op.cross_entropy(scores(text), following)
    parameters = [letters, places, *(p for block in blocks for _, p in block.parameters())]
    return {"loss": loss, "grads": graph.backward(loss, wrt=parameters)}
