from tessera import Tensor, f32, graph


@graph.module("m")
def m(x: Tensor["B", 4, f32]):
    if x.shape[0] == 1:
    #  ^ EXTENT_AS_PYTHON: an extent is asked for whether two numbers are equal while the model is traced
        return x
    return x + 1.0
