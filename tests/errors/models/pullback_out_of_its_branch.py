from tessera import Tensor, graph, op


@graph.module("m")
def m(x: Tensor[4]):
    kept = []

    def then():
        value, back = graph.vjp(lambda a: op.sin(a) * a, x)
        kept.append(back)
        return value

    y = op.cond(op.reduce_sum(x) > 0.0, then, lambda: x)
    return kept[0](x), y
    #      ^ TENSOR_OUT_OF_SCOPE: a tensor is used outside of the function that it was made in
