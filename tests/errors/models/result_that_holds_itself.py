from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 8, f32]):
#^ NESTED_TOO_DEEP: a nesting of tensors holds itself
    results = [x]
    results.append(results)
    return results
