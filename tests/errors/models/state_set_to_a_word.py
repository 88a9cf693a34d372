from tessera import KVCache, State, Tensor, f32, graph, i32, op


@graph.module("m")
def m(x: Tensor[3, f32], s: State[3, f32]):
    return x, s.set("word")
    #         ^ BAD_ARGUMENT: State.set cannot take its argument value
