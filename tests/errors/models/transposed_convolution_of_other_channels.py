from tessera import Tensor, f32, graph, op

W = op.tensor((4, 3, 2, 2), init=op.init.ones())


@graph.module("m")
def m(x: Tensor["B", 3, 8, 8]):
    return op.conv_transpose(x, W, stride=2)
    #      ^ TYPE_MISMATCH: a transposed convolution's weights do not fit its image
