from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B"]):
    if x.shape[0] > 3:
    #  ^ EXTENT_AS_PYTHON: an extent is asked for which of two numbers is larger while the model is traced
        return x
    return x + 1
