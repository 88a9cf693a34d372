from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    W = op.tensor((3,), init=op.init.normal(seed=1))
    #   ^ PARAMETER_IN_TRACE: a parameter is made anew whenever the function is traced
    return x * W
