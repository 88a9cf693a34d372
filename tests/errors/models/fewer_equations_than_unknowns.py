from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3]):
    return op.solve(lambda v: v[:2], x)
    #      ^ CARRY_CHANGES_TYPE: the function of solve gives another type than it takes
