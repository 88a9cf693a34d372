from functools import partial

from tessera import Tensor, f32, graph, op


def scaled(x, factor):
#^ INPUT_WITHOUT_TYPE: argument x of the entry m has no type
    return x * factor


m = graph.module("m")(partial(scaled, factor=3.0))
