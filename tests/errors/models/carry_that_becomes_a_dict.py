from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor[4]):
    return op.scan(lambda c, t: ({"a": c}, None), x, None, length=3)
    #      ^ CARRY_CHANGES_TYPE: what scan carries is nested differently from one iteration to the next
