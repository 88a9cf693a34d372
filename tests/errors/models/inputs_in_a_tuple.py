from tessera import Tensor, graph, op

@graph.module("m")
def m(*xs: Tensor[3]):
#^ INPUT_WITHOUT_NAME: the inputs that xs of the entry m takes have no names
    return xs[0] * 2.0
