from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4]):
    first = {"a": x, "b": x}
    return op.while_(lambda c: op.reduce_max(c["a"]) < 9.0, lambda c: (c["a"], c["b"]), first, max_iter=3)
    #      ^ CARRY_CHANGES_TYPE: what while_ carries is nested differently from one iteration to the next
