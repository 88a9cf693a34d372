from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.reduce_sum(x, axis=0)
    #      ^ AUTHOR_CODE_FAILED: TypeError: reduce_sum() got an unexpected keyword argument 'axis'
