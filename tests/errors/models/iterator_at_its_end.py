from tessera import KVCache, State, Tensor, f32, graph, i32, op


@graph.module("m")
def m(x: Tensor[3, f32]):
    return next(iter([]))
    #      ^ AUTHOR_CODE_FAILED: StopIteration
