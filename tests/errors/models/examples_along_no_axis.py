from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3, 4]):
    return graph.vmap(lambda a: a * 2, in_axes=5)(x)
    #      ^ VMAP_AXES: there is no axis 5 of examples
