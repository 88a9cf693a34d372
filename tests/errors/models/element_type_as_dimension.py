from tessera import Tensor, f32, graph, op

@graph.module("m")
def m(x: Tensor["B", "float32"]):
#        ^ BAD_EXTENT: 'float32' in the annotation of a tensor is an element type and no dimension
    return x
