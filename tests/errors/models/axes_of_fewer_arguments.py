from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor[3, 4], y: Tensor[3, 4]):
    return graph.vmap(lambda a, b: a * b, in_axes=(0,))(x, y)
    #      ^ VMAP_AXES: in_axes has not one axis for each argument
