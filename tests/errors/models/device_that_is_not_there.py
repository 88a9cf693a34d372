from tessera import State, Tensor, device, gpu, graph

@graph.module("m")
def m(x: Tensor[3], s: State[3] @ device(gpu)):
#                                 ^ PLACEMENT_UNSUPPORTED: a model has one place: the target that it is built for
    return s.set(x)
