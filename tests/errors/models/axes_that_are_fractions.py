from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.vmap(lambda a: a * 2, in_axes=0.0)(x)
    #      ^ VMAP_AXES: in_axes is no axis
