from tessera import Tensor, f32, graph, op

W = op.tensor((3,), init="he")
#   ^ BAD_ARGUMENT: a parameter's initialiser is none


@graph.module("m")
def m(x: Tensor[3]):
    return x * W
