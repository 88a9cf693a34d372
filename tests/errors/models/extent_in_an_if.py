from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B"]):
    if x.shape[0] > 3:
    #  ^ AUTHOR_CODE_FAILED: TypeError: '>' not supported between instances of 'Dim' and 'int'
        return x
    return x + 1
