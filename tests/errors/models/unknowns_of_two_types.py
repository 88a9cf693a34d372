from tessera import Tensor, f64, graph, op


@graph.module("m")
def m(x: Tensor[4], y: Tensor[4, f64]):
    return op.solve(lambda z: z, {"x": x, "y": y})
    #      ^ TYPE_MISMATCH: solve looks for an answer in f32 or f64
