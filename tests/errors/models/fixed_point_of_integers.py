from tessera import Tensor, graph, i32, op

@graph.module("m")
def m(x: Tensor[3, i32]):
    return op.fixed_point(lambda v: v, x)
    #      ^ TYPE_MISMATCH: fixed_point looks for an answer in f32 or f64
