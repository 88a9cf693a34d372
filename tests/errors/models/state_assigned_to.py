from tessera import KVCache, State, Tensor, f32, graph, i32, op


@graph.module("m")
def m(x: Tensor[3, f32], s: State[3, f32]):
    s.value = x
    #^ AUTHOR_CODE_FAILED: FrozenInstanceError: cannot assign to field 'value'
    return x, s
