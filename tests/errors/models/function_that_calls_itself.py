from tessera import Tensor, f32, graph, op

def deeper(x):
    return deeper(x)
#          ^ AUTHOR_CODE_FAILED: RecursionError


@graph.module("m")
def m(x: Tensor[3]):
    return deeper(x)
