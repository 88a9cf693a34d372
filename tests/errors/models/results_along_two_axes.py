from tessera import Tensor, f32, graph, loss_scale, op


@graph.module("m")
def m(x: Tensor[4]):
    return graph.vmap(lambda a: a * 2, out_axes=(0, 1))(x)
    #      ^ VMAP_AXES: out_axes is no axis
