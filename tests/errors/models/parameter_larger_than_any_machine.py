from tessera import Tensor, f32, graph, op

W = op.tensor((10**7, 10**7), init=op.init.normal(seed=1))
#   ^ VALUE_TOO_LARGE: a parameter is larger than any machine can hold


@graph.module("m")
def m(x: Tensor[3]):
    return x
