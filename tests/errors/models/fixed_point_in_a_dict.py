from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4]):
    return op.fixed_point(lambda z: {"z": op.tanh(z + x)}, x)
    #      ^ CARRY_CHANGES_TYPE: the function of fixed_point gives another type than it takes
