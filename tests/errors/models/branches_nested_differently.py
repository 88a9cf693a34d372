from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return op.cond(op.reduce_sum(x) > 0, lambda: {"mean": x, "std": x}, lambda: {"mean": x, "spread": x})
    #      ^ BRANCHES_DIFFER: the branches of cond nest their results differently
