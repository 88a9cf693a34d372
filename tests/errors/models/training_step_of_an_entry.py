from tessera import Tensor, f32, graph, op


@graph.training_step(module="train")
 #^ BAD_ARGUMENT: the function is an entry already, called 'm'
@graph.module("m")
def m(x: Tensor[3, f32]):
    return x
