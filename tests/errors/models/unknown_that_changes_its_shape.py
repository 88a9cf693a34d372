from tessera import Tensor, graph, op


@graph.module("m")
def m(x: Tensor[4], y: Tensor[3]):
    return op.fixed_point(lambda z: {"x": z["y"], "y": z["x"]}, {"x": x, "y": y})
    #      ^ CARRY_CHANGES_TYPE: the function of fixed_point gives another type than it takes
