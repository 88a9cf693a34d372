from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3, 4]):
    return graph.vmap(lambda a: a * 2, out_axes=7)(x)
    #      ^ VMAP_AXES: there is no axis 7 of examples
