from tessera import Tensor, f32, graph, op


@graph.module("m")
def m(x: Tensor["B", 4, f32]):
    return x, op.arange(300, "i8")
    #         ^ NUMBER_CHANGES_TYPE: the number 299 is no element of type i8
