from tessera import KVCache, Tensor, f32, graph, op


@graph.module("m")
def m(q: Tensor["B", 2, "S", 8, f32], cache: KVCache["B", 2, 64, 8, f32]):
    cache = cache.append(q, q)
    return op.merge_heads(op.flash_attention(q, cache)), cache
    #      ^ TYPE_MISMATCH: merge_heads takes heads
