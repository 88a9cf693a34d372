from tessera import Tensor, f32, graph, op

@graph.module("../m")
 #^ BAD_NAME: an entry cannot be called so
def m(x: Tensor[3]):
    return x
