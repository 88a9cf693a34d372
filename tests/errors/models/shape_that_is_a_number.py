from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 3]):
    return x + op.random.normal(op.random.key(1), 3)
    #          ^ BAD_EXTENT: a shape is none
