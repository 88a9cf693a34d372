from tessera import Tensor, f32, graph, op

@graph.module("again")
 #^ BAD_ARGUMENT: the function is an entry already, called 'm'
@graph.module("m")
def m(x: Tensor[3]):
    return x
