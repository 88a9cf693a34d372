from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return x * op.softmax(2.5)
    #          ^ BAD_AXIS: axis -1 is out of range
