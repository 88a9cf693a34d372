from tessera import Tensor, graph, op

@graph.module("m")
def m(x: Tensor["B", 4]):
    return x * op.softmax(2.5)
    #          ^ NOT_A_TENSOR: none of the operands is a tensor
