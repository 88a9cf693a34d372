from tessera import Tensor, f32, graph, op


m = graph.module("m")(3)
#   ^ BAD_ARGUMENT: graph.module takes functions
