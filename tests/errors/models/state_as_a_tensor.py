from tessera import State, Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 8, f32], s: State[8, f32]):
    return x + s
    #      ^ NOT_A_TENSOR: an operand is no tensor
