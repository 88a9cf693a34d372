from tessera import KVCache, State, Tensor, f32, graph, i32, op


@graph.module("m")
def m(q: Tensor[1, 2, 1, 4, i32], cache: KVCache[1, 2, 16, 4, f32]):
    return cache.append(q, q)
    #      ^ TYPE_MISMATCH: what is appended does not fit the cache
