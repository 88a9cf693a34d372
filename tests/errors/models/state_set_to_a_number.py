from tessera import KVCache, State, Tensor, f32, graph, i32, op


@graph.module("m")
def m(x: Tensor[3, f32], s: State[3, f32]):
    return x, s.set(3.0)
    #         ^ STATE_CHANGES_TYPE: the next state has another type than the one that came in
